"""An engine in three methods, as CONTRIBUTING shows it: it makes tokens out of a counter."""

from harness.runtimes.simple import SimpleRuntime


class Toy(SimpleRuntime):
    """A model is any file; a token is computed by adding its bytes."""

    name, version, formats = "toy", "0.1", ("gguf",)
    vocab_count = 32_000

    def load(self, path, scenario):
        return bytearray(path.read_bytes()[: 1 << 20])

    def generate(self, model, prompt, count):
        seed = sum(prompt) + sum(model)
        for step in range(count):
            yield (seed + sum(model) + step) % self.vocab_count

    def close(self, model):
        model.clear()


RUNTIME = Toy()
