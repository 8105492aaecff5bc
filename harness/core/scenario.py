"""What is asked of a model on a device."""

from harness.core.base import Frozen
from harness.core.model import Tokens
from harness.core.placement import Placement
from harness.core.program import Program, program_named


class Scenario(Frozen):
    """One way of using a model.

    Attributes:
        context_tokens: KV cache allocated.
        prompt_tokens: Tokens of the prompt (prefill test ``pp``).
        new_tokens: Tokens generated after it (decode test ``tg``).
        depth_tokens: Tokens already in the KV cache before the test starts.
        batch_count: Sequences decoded together.
        ubatch_tokens: Tokens of one physical batch in prefill.
        kv_type: ggml type of the KV cache.
        value_type: That of its values, where it is another one; empty for the same.
        flash_attention: Whether attention is fused (no score matrix in memory).
        thread_count: CPU threads; 0 lets the harness choose the physical cores.
        repack: Whether the CPU backend may rewrite weights into its own layout (llama.cpp's default).
        mmap: Whether the file is mapped (llama.cpp's default) or read into anonymous memory.
        api: ``cpu metal cuda rocm vulkan opencl``; empty for the device's usual one.
        placement: What lies with the GPU that the api drives, and what with the CPU.
        program: Program that runs it, with its version (``llama-server b9460``); empty for the harness
            itself.
        draft_tokens: Tokens that its own layers draft at a time (MTP): recurrent states are kept for each.
    """

    context_tokens: Tokens = 4096
    prompt_tokens: Tokens = 512
    new_tokens: Tokens = 128
    depth_tokens: Tokens = 0
    batch_count: Tokens = 1
    ubatch_tokens: Tokens = 512
    kv_type: str = "F16"
    value_type: str = ""
    flash_attention: bool = True
    thread_count: Tokens = 0
    repack: bool = True
    mmap: bool = True
    api: str = ""
    placement: Placement = Placement()
    program: str = ""
    draft_tokens: Tokens = 0

    @property
    def is_timed_cold(self) -> bool:
        """Whether a first token after a cold load tells of it: what is timed then is one prompt in an empty cache."""
        return not self.depth_tokens and self.batch_count == 1

    @property
    def served(self) -> Program:
        """Its program with as many slots as there are sequences: with caches of their own unless it is told otherwise.

        Raises:
            UnknownNameError: No such program.
        """
        slots = f" -np {self.batch_count}" if self.program and self.batch_count > 1 else ""
        return program_named(f"{self.program}{slots}")

    @property
    def flags(self) -> str:
        """What of it llama.cpp's programs do not do unasked, as their options: neither context nor placement."""
        usual = Scenario()
        keys = self.kv_type.lower()
        unified = " --kv-unified" if self.served.unified else ""
        options = {
            f"-ctk {keys} -ctv {(self.value_type or keys).lower()}": keys != "f16" or self.value_type,
            f"-np {self.batch_count}{unified}": self.batch_count > 1,
            f"-t {self.thread_count}": self.thread_count,
            f"-ub {self.ubatch_tokens}": self.ubatch_tokens != usual.ubatch_tokens,
            "-fa off": not self.flash_attention,
            "--no-repack": not self.repack,
            "-lm none": not self.mmap,
        }
        return " ".join(words for words, is_told in options.items() if is_told)
