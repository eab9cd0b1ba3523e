"""The C kernels under the address and undefined-behaviour sanitizers, without Python."""

import shutil
import subprocess
from pathlib import Path

import pytest

from regrow.execution.csr import build

MAIN = Path(__file__).parent / "kernels_main.c"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
FLAGS = ["-std=gnu11", "-O0", "-g1", *SANITIZERS, "-Wall", "-Wextra", "-Werror"]


@pytest.mark.parametrize("openmp", [True, pytest.param(False, marks=pytest.mark.long)])
def test_no_access_out_of_bounds_and_no_undefined_behaviour(tmp_path, openmp):
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs gcc")
    program = tmp_path / "kernels"
    flags = [*FLAGS, "-DUNROLL=", *(["-fopenmp"] if openmp else ["-Wno-unknown-pragmas"])]
    command = [compiler, *flags, f"-I{build.SOURCES}", str(MAIN), "-o", str(program), "-lm"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if "cannot find" in built.stderr:
        pytest.skip("this gcc lacks the sanitizers' libraries")
    assert built.returncode == 0, built.stderr
    ran = subprocess.run(
        [str(program)],
        capture_output=True,
        text=True,
        check=False,
        # Passive: threads that outnumber the cores would spin while they wait for one another.
        env={
            "ASAN_OPTIONS": "detect_leaks=0",
            "OMP_NUM_THREADS": "3",
            "OMP_WAIT_POLICY": "passive",
        },
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    assert ran.stdout.split()


@pytest.mark.parametrize(
    ("compiler", "emulator"), [("clang", ()), ("aarch64-linux-gnu-gcc", ("qemu-aarch64",))]
)
def test_other_compilers_and_processors_compute_the_same(tmp_path, compiler, emulator):
    for tool in (compiler, *emulator):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    program = tmp_path / "kernels"
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
    flags += ["-static"] if emulator else []
    command = [compiler, *flags, f"-I{build.SOURCES}", str(MAIN), "-o", str(program), "-lm"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    ran = subprocess.run([*emulator, program], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-4000:]
    assert ("neon" in ran.stdout) == bool(emulator)
