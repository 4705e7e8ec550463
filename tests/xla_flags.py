"""The options of XLA under which the programs of the tests are cheap to compile; run as a script, prints them.

Half of the time of the tests is compiling, and each program runs once or twice, on small data. So LLVM
optimises nothing, a program is compiled as one module instead of up to 32, and its kernels come from
XLA's older emitters: together a third of the time. Four passes that only make loops faster are left out:
a fifth of what a `fit` under `jit` takes to compile. The results are the same to rounding.
"""

from importlib.metadata import version

# jaxlib 0.12 ends the process at the name: the older emitters are gone there.
FIRST_WITHOUT_OLD_EMITTERS = (0, 11)

# Each follows every operation of every loop, most of them to find out how often it runs.
PASSES_LEFT_OUT = (
    "simplify-while-loops",
    "small-while-loop-hoisting",
    "while-loop-invariant-code-motion",
    "while-loop-trip-count-annotator",
)


def xla_flags() -> str:
    """The options for the installed jaxlib, as the environment variable XLA_FLAGS takes them."""
    flags = ["--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"]
    # XLA's own threads now and then wait for one another for ever on few cores: no pool in a program.
    flags.append("--xla_cpu_multi_thread_eigen=false")
    flags.append("--xla_disable_hlo_passes=" + ",".join(PASSES_LEFT_OUT))
    release = tuple(int(part) for part in version("jaxlib").split(".")[:2])
    if release < FIRST_WITHOUT_OLD_EMITTERS:
        flags.append("--xla_cpu_use_fusion_emitters=false")
    return " ".join(flags)


if __name__ == "__main__":
    print(xla_flags())
