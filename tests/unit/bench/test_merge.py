"""Rows that others measured, merged into the published ones where the law agrees."""

from pathlib import Path

from click.testing import CliRunner

from bench.merge import main


def test_rows_that_contradict_the_law_are_named_and_not_added(tmp_path: Path) -> None:
    head = "chip,backend,device_class,memory_bandwidth_gb_s,model,params_b,quant,test,tokens_per_s,runtime,trust\n"
    row = "GeForce RTX 3090,cuda,gpu,936,Llama-3.1-8B,8.03,Q4_K_M,tg128,{},llama.cpp llama-bench,B\n"
    (tmp_path / "rows.csv").write_text(head + row.format(132) + row.format(12))
    done = CliRunner().invoke(main, [str(tmp_path / "rows.csv")])
    assert done.exit_code == 1
    assert "agrees" in done.output and "contradicts" in done.output
    assert "1 agree, 1 do not" in done.output
