"""Do features of a sparse autoencoder mean something? Detection, steering, and three sizes beside three seeds.

    python -m bench sae_interpretability MODEL.gguf --judge JUDGE.gguf [--part features|sizes|all] [--minutes 10]

Detection (Paulo et al. 2024, "Automatically interpreting millions of features in large language models"). A feature is
described by its five strongest contexts of the training text. A second model, which sees only that, says of held-out
snippets whether the feature fires in them: P(Yes) against P(No). Half of the snippets hold a firing, drawn at random
and not the strongest; the likelier half is taken as Yes, so that no threshold is fitted. Then balanced accuracy is the
share of firings found, and under chance the number found in each feature is hypergeometric: p is exact, by the
convolution over features. Beside it: the same questions with another feature's description, and a rule that says Yes
to snippets with one of the tokens that the contexts mark.

Steering: the feature's decoder row times its strongest activation is added to the residual stream at every ordinary
token of held-out text. Effect: change of the mean log-probability, nats, of the feature's own next tokens (those that
followed its firings in training, by activation), beside a random direction and another feature's, as long each. p is
exact, from the number of features whose own direction beats the other.

Every dictionary here is trained in 300 steps, half of the study's. Sizes: unexplained variance and dead features for
three seeds, loss recovered for the first one, and the share of features that have a twin (cosine above 0.7) in the
dictionary of the next seed.

Each part keeps its rows as they come. ``--minutes`` bounds how many features are judged: then fewer are, and the table
says of how many.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from time import perf_counter
from typing import Final, NamedTuple

import click
import numpy as np
from numpy.typing import NDArray

from bench._kept import keep
from harness.domain.scenario import Scenario
from harness.ports import WorkloadContext
from harness.runtimes.llamacpp import RUNTIME
from harness.stats.intervals import Estimate, cluster_interval
from harness.workloads._language.activations import Captured, block_name, ordinary, scenario_of
from harness.workloads._language.cases import watched
from harness.workloads._language.judgement import Judge, signal
from harness.workloads._language.sampling import log_softmax_at, logits_after
from harness.workloads._language.templates import ChatTemplate
from harness.workloads.sparse_autoencoder.features import Feature, top_features
from harness.workloads.sparse_autoencoder.metrics import quality
from harness.workloads.sparse_autoencoder.model import Floats, SparseAutoencoder
from harness.workloads.sparse_autoencoder.splice import Splice, losses
from harness.workloads.sparse_autoencoder.study import BATCH_TOKENS, TRAIN_TOKENS, Material, gather
from harness.workloads.sparse_autoencoder.training import Plan, Trainer

EXPANSIONS: Final = (2, 4, 8)
SEEDS: Final = (1, 2, 3)
PER_KIND: Final = 8
"""Held-out snippets with a firing, and as many without, for each feature."""
BEFORE, AFTER = 14, 3
_TOGETHER: Final = 8
_TWIN_COSINE: Final = 0.7
_STEERED_TOKENS: Final = 128
_STEERED: Final = 20
"""Features that are steered: more than are judged, since it is cheaper."""
_OWN_TOKENS: Final = 3
_LOSS_CHARS: Final = 6000
_STEPS: Final = 300


Said = list[NDArray[np.bool_]]
"""Yes or no to each snippet of each feature."""


class Asked(NamedTuple):
    """A feature and its held-out snippets, those with a firing first."""

    feature: Feature
    snippets: list[str]


def trained(material: Material, expansion: int, seed: int) -> SparseAutoencoder:
    """TopK-32 on the material."""
    x, _ = material.rows()
    plan = Plan(
        feature_count=expansion * x.shape[1],
        step_count=_STEPS,
        batch_tokens=min(BATCH_TOKENS, len(x)),
        seed=seed,
    )
    return Trainer(x, plan).run()


def firings(autoencoder: SparseAutoencoder, captured: Captured, limit: float, feature: int) -> Floats:
    """Activation of one feature at each token [token_count]; massive tokens have none."""
    x = captured.values
    encoder = autoencoder.encoder[:, feature]
    maybe = (x - autoencoder.decoder_bias) @ encoder + autoencoder.encoder_bias[feature]
    found = np.zeros(len(x), np.float32)
    rows = np.flatnonzero(ordinary(x, limit) & (maybe > 0))  # only those can be among the k largest
    codes = autoencoder.encode_blocks(x[rows]) if len(rows) else None
    if codes is not None:
        found[rows] = np.where(codes.indices == feature, codes.values, 0).sum(axis=1)
    return found


def snippets(
    active: Floats, captured: Captured, detokenize: Callable[[Sequence[int]], str], rng: np.random.Generator
) -> list[str]:
    """Snippets with a firing near their end, then as many with none at all; empty where there are too few."""
    starts = {int(s) for s in captured.windows}
    places = [p for p in range(BEFORE, len(active) - AFTER) if not starts & set(range(p - BEFORE + 1, p + AFTER + 1))]
    quiet = [p for p in places if not active[p - BEFORE : p + AFTER + 1].any()]
    loud = [p for p in places if active[p] > 0]
    if min(len(quiet), len(loud)) < PER_KIND:
        return []
    chosen = [*rng.choice(loud, PER_KIND, replace=False), *rng.choice(quiet, PER_KIND, replace=False)]
    return [detokenize(captured.tokens[p - BEFORE : p + AFTER + 1].tolist()) for p in chosen]


def described(feature: Feature) -> str:
    """What the judge is told of a feature."""
    lines = [f"- {c.before}<<{c.token}>>{c.after}".replace("\n", " ") for c in feature.contexts]
    return (
        "A detector fires on certain places of a text. In these examples the place where it fired is between << and "
        ">>:\n" + "\n".join(lines) + "\nYou are shown another piece of text, without marks. Answer Yes if the detector "
        "would fire somewhere in it, else No."
    )


def likelier_half(scores: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Yes to half of a feature's snippets; of equal scores the later ones, those without a firing, are taken."""
    said = np.zeros(len(scores), np.bool_)
    said[np.lexsort((-np.arange(len(scores)), -scores))[:PER_KIND]] = True
    return said


def chance(said: Sequence[NDArray[np.bool_]]) -> float:
    """Exact two-sided p of all firings that were found, each feature's number of Yes given: sums no likelier."""
    from scipy.stats import hypergeom

    law = np.ones(1)
    for one in said:
        law = np.convolve(law, hypergeom(2 * PER_KIND, PER_KIND, int(one.sum())).pmf(np.arange(PER_KIND + 1)))
    found = law[sum(int(one[:PER_KIND].sum()) for one in said)]
    return min(1.0, float(law[law <= found * (1 + 1e-9)].sum()))


def judged(judge: Path, asked: Sequence[Asked], context: WorkloadContext) -> Iterator[list[Said]]:
    """What the judge says of the features' snippets so far, by their own descriptions and by other features'."""
    scenario, template = Scenario(context_tokens=2048, thread_count=context.thread_count), ChatTemplate.of(judge)
    options = {"sequence_count": _TOGETHER + 1, "output_tokens": _TOGETHER + 1}
    others = [one.feature for one in [*asked[1:], asked[0]]]
    found: list[Said] = [[], []]
    with closing(RUNTIME.open(judge, scenario, **options)) as session:
        for one, other in watched(list(zip(asked, others, strict=True)), context, "features judged"):
            questions = [f"Text: {s.strip()}\nDoes the detector fire?" for s in one.snippets]
            for said, teller in zip(found, (one.feature, other), strict=True):
                weighed = Judge(session, template, described(teller), together=_TOGETHER)
                said.append(likelier_half(weighed.margins(questions)))
            yield found


def by_tokens(one: Asked) -> NDArray[np.bool_]:
    """Yes to snippets that hold a token which the feature's contexts mark."""
    return np.array([any(c.token in s for c in one.feature.contexts) for s in one.snippets])


def detection_row(name: str, said: Sequence[NDArray[np.bool_]]) -> list[str]:
    """Balanced accuracy, its interval over features, and the exact test."""
    right = [int(one[:PER_KIND].sum() + (~one[PER_KIND:]).sum()) for one in said]
    found = cluster_interval(right, [2 * PER_KIND] * len(right))
    p = chance(said)
    says = ("better" if found.mid > 0.5 else "worse") + " than chance" if p <= 0.05 else "no signal"
    return ["detection", name, _interval(found), f"{p:.2g}", says]


def own_tokens(active: Floats, captured: Captured) -> list[int]:
    """The tokens that most often followed a firing, by activation."""
    ends = np.zeros(len(active), np.bool_)
    ends[np.append(captured.windows[1:], len(active)) - 1] = True
    places = np.flatnonzero((active > 0) & ~ends)
    weights = np.bincount(captured.tokens[places + 1], weights=active[places])
    return [int(t) for t in np.argsort(-weights, kind="stable")[:_OWN_TOKENS] if weights[t] > 0]


def steered(
    model: Path, material: Material, sae: SparseAutoencoder, features: Sequence[Feature], threads: int
) -> dict[str, NDArray[np.float64]]:
    """Change of the mean log-probability of each feature's own tokens, nats, by direction [features]."""
    tap = Splice(block_name(material.layer), material.limit)
    rng = np.random.default_rng(1)
    shifts: dict[str, list[float]] = {"own direction": [], "random direction": [], "another feature's": []}
    with closing(RUNTIME.open(model, scenario_of(threads, _STEERED_TOKENS), tap=tap)) as session:
        text = material.held_out.tokens[:_STEERED_TOKENS].tolist()

        def mean_of(tokens: Sequence[int]) -> float:
            rows = logits_after(session, text)
            return float(np.mean([[log_softmax_at(row, t) for t in tokens] for row in rows]))

        for at, feature in enumerate(features):
            own = own_tokens(firings(sae, material.train, material.limit, feature.index), material.train)
            drawn = rng.standard_normal(sae.input_dim).astype(np.float32)
            other = features[(at + 1) % len(features)].index
            directions = (sae.decoder[feature.index], drawn / np.linalg.norm(drawn), sae.decoder[other])
            tap.change = None
            plain = mean_of(own)
            for name, direction in zip(shifts, directions, strict=True):
                added = np.float32(feature.contexts[0].activation) * direction
                tap.change = lambda x, added=added: x + added
                shifts[name].append(mean_of(own) - plain)
    return {name: np.array(found) for name, found in shifts.items()}


def steering_rows(shifts: dict[str, NDArray[np.float64]]) -> list[list[str]]:
    """Mean change, its interval over features, and the sign test of the own direction against each of the others."""
    own = shifts["own direction"]
    rows = []
    for name, found in shifts.items():
        mean = cluster_interval(found, np.ones(len(found)))
        if found is own:
            rows.append(["steering, nats", name, _interval(mean), "-", "-"])
            continue
        wins = int((own > found).sum())
        test = signal(wins, len(own))
        says = {"better than chance": "own is stronger", "worse than chance": "own is weaker"}.get(test.says, test.says)
        rows.append(["steering, nats", name, _interval(mean), f"{test.p:.2g}", f"{says}, {wins} of {len(own)}"])
    return rows


def size_rows(model: Path, material: Material, context: WorkloadContext) -> Iterator[list[list[str]]]:
    """Quality at three sizes, three seeds each, as means and the range over seeds: all rows known so far."""
    x, held = material.rows()
    mean = x.mean(axis=0, dtype=np.float64).astype(np.float32)
    rows = []
    for expansion in watched(EXPANSIONS, context, "sizes"):
        saes = [trained(material, expansion, seed) for seed in SEEDS]
        told = [quality(sae, held) for sae in saes]
        kept = losses(
            RUNTIME.open, model, material.later_text[:_LOSS_CHARS], block_name(material.layer), saes[0].reconstruct,
            mean, material.limit, thread_count=context.thread_count,
        ).recovered_mean_ratio  # fmt: skip
        twins = [_twins(a, b) for a, b in zip(saes, [*saes[1:], saes[0]], strict=True)]
        rows.append([f"{expansion} x {x.shape[1]}", f"{np.mean([q.active_count for q in told]):.1f}"])
        figures = ([q.fvu_ratio for q in told], [q.dead_ratio for q in told], twins)
        rows[-1] += [f"{np.mean(f):.3f} ({min(f):.3f} to {max(f):.3f})" for f in figures]
        rows[-1].append("-" if kept is None else f"{kept:.3f}")
        yield rows


def _twins(first: SparseAutoencoder, second: SparseAutoencoder) -> float:
    """Share of the first one's features with a near one in the second."""
    blocks = (first.decoder[at : at + 512] @ second.decoder.T for at in range(0, first.feature_count, 512))
    return float(np.mean(np.concatenate([block.max(axis=1) > _TWIN_COSINE for block in blocks])))


def _interval(found: Estimate) -> str:
    return f"{found.mid:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def feature_rows(
    model: Path, judge: Path, material: Material, most: int, context: WorkloadContext
) -> Iterator[list[list[str]]]:
    """Steering and detection of the most telling features of one dictionary: all rows known so far."""
    sae, threads = trained(material, 8, 1), context.thread_count
    with closing(RUNTIME.open(model, scenario_of(threads))) as session:
        telling = top_features(
            sae, material.train, material.limit, session.detokenize, feature_count=2 * max(most, _STEERED)
        )
        rng, asked = np.random.default_rng(1), []
        for feature in telling:
            active = firings(sae, material.held_out, material.limit, feature.index)
            if pieces := snippets(active, material.held_out, session.detokenize, rng):
                asked.append(Asked(feature, pieces))
    asked = asked[:most]
    print(f"{len(asked)} features with {PER_KIND} held-out firings or more", flush=True)
    rows = steering_rows(steered(model, material, sae, telling[:_STEERED], threads))
    yield rows
    if not asked:
        return
    for own, others in judged(judge, asked, context):
        known = [by_tokens(one) for one in asked[: len(own)]]
        ways = {"a token that the contexts mark": known, "its own description": own, "another's description": others}
        count = f"{len(own)} of {len(asked)} features"
        yield rows + [detection_row(f"{name}, {count}", said) for name, said in ways.items()]


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--judge", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True)
@click.option("--part", type=click.Choice(["features", "sizes", "all"]), default="all", show_default=True)
@click.option("--features", "most", type=click.IntRange(2), default=24, show_default=True)
@click.option("--tokens", "least_tokens", type=click.IntRange(1), default=TRAIN_TOKENS, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--minutes", default=10.0, show_default=True, help="Ends before where it can, with what it has.")
@click.option("--cache", type=click.Path(file_okay=False, path_type=Path), help="Keep activations there.")
def main(
    model: Path, judge: Path, part: str, most: int, least_tokens: int, threads: int, minutes: float, cache: Path | None
) -> None:
    """Print what features of MODEL mean to a judge, what they do, and how sizes and seeds compare."""
    until_s = perf_counter() + 60 * minutes
    context = WorkloadContext(Path(), Path(), 1, threads, say=lambda line: click.echo(line, err=True), until_s=until_s)
    material = gather(RUNTIME.open, model, thread_count=threads, least_tokens=least_tokens, cache=cache)
    said = f"python -m bench sae_interpretability {model.name} --judge {judge.name} --tokens {least_tokens}"
    if part != "sizes":
        columns = ["study", "by", "balanced accuracy, or change", "exact p", "says"]
        for rows in feature_rows(model, judge, material, most, context):
            keep("workloads/sae-features.json", columns, rows, f"{said} --part features --features {most}")
    if part != "features":
        columns = ["features", "L0", "unexplained variance", "dead", "twin elsewhere", "loss recovered (mean ablation)"]
        for rows in size_rows(model, material, context):
            keep("workloads/sae-sizes.json", columns, rows, f"{said} --part sizes")


if __name__ == "__main__":
    main()
