"""llama.cpp as the wheels of xllamacpp bring it: built already, so that no compiler is needed."""

from harness.runtimes.llamacpp import LlamaCpp


class XLlamaCpp(LlamaCpp):
    """The llama.cpp runtime on that library, also where one compiled for the machine is installed."""

    name = module = "xllamacpp"


RUNTIME = XLlamaCpp()
