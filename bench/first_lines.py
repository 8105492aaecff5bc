"""The first line of ``fit`` for twenty models on twelve devices: to be read as a stranger would, and to be compared.

python -m bench first_lines > before.txt        # at one commit
python -m bench first_lines | diff before.txt - # at another: every answer that changed
"""

import shlex

import click
from click.testing import CliRunner

from harness.cli import cli

MODELS = """
    smollm2-135m llama-3.2-1b llama-3.2-3b gemma-3-4b qwen3-8b llama-3.1-8b mistral-nemo-12b gemma-3-12b qwen3-14b
    gpt-oss-20b gemma-3-27b qwen3-30b-a3b qwen3-32b llama-3.3-70b qwen2.5-72b gpt-oss-120b qwen3-235b-a22b deepseek-r1
    bge-m3 qwen2.5-vl-7b
"""
DEVICES = """
    iphone-15-pro galaxy-s24 'pixel 9 pro' 'ipad pro m4' raspberry-pi-5-16gb macbook-air-m1-8gb macbook-pro-m3-max
    rtx-4060-desktop '2x rtx 3090' 'strix halo 128GB' jetson-orin-nano-super 'core i5-8250u, 8GB'
"""


@click.command()
def main() -> None:
    """Print them, devices one after the other."""
    for device in shlex.split(DEVICES):
        for model in MODELS.split():
            done = CliRunner().invoke(cli, ["fit", model, "-d", device, "--no-advice"])
            click.echo(done.stdout.partition("\n")[0] or f"{model} on {device}: {done.exception}")


if __name__ == "__main__":
    main()
