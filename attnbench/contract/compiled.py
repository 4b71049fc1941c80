"""torch.compile, tried in a process of its own that runs beside the other checks: it may take long, and may crash.

python -m attnbench.contract.compiled SPEC     a JSON object: name, knobs, shape, channels, causal; prints a finding
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import torch

from attnbench import plugins
from attnbench.contract.slots import Finding, Slot, apart, judged

LONGEST_S = 30.0
NEAR = 1e-4
ROOT = Path(__file__).parents[2]


class Compiling:
    """A process that compiles a mechanism while others are looked at."""

    def __init__(self, slot: Slot):
        self.process, self.start, site = None, perf_counter(), slot.site
        self.absent = absence()
        if self.absent:
            return
        spec = {"name": slot.entry.name, "knobs": dict(slot.knobs)}
        spec |= {"shape": site.shape, "channels": site.channels, "causal": site.causal}
        places = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "attnbench.contract.compiled", json.dumps(spec)],
            env=os.environ | {"PYTHONSAFEPATH": "1", "PYTHONPATH": places, "TORCHINDUCTOR_COMPILE_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finding(self) -> Finding:
        """What came of it; waits for it, up to a limit from the start."""
        if self.process is None:
            return Finding("not applicable", self.absent)
        try:
            left = max(1.0, LONGEST_S - (perf_counter() - self.start))
            told, wrong = self.process.communicate(timeout=left)
        except subprocess.TimeoutExpired:
            self.stop()
            return Finding("not applicable", f"torch.compile had not ended after {LONGEST_S:.0f} s on this machine")
        if self.process.returncode:
            last = (wrong.strip().splitlines() or ["no word"])[-1]
            return Finding("fail", f"the process that compiles ended with {self.process.returncode}: {last[:160]}")
        return Finding(*json.loads(told.splitlines()[-1]))

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


def absence() -> str:
    """Why nothing can be compiled here; empty when it can."""
    if sys.platform == "win32":
        return "torch.compile is not tried on this system"
    compiler = os.environ.get("CXX") or "g++"
    if not (shutil.which(compiler) or shutil.which("clang++")):
        return f"there is no C++ compiler here: neither {compiler} nor clang++"
    return ""


def compiled(slot: Slot) -> Finding:
    """The output of compiled code; and its gradient as traced, without the minute that compiling it can take."""
    module, x = slot.perturbed(), slot.tokens().requires_grad_()
    plain = module(x)
    (wanted,) = torch.autograd.grad(plain.square().sum(), x)
    start = perf_counter()
    with torch.no_grad():
        y = torch.compile(module)(x)
    seconds = perf_counter() - start
    torch.compiler.reset()
    (found,) = torch.autograd.grad(torch.compile(module, backend="aot_eager")(x).square().sum(), x)
    error = max(apart(y, plain), apart(found, wanted))
    return judged(
        error < NEAR, f"compiled in {seconds:.1f} s; error of the output, and of the gradient as traced", error
    )


def main() -> None:
    import mechanisms
    from mechanisms import Site

    plugins.join()
    spec = json.loads(sys.argv[1])
    site = Site(channels=spec["channels"], shape=tuple(spec["shape"]), causal=spec["causal"])
    slot = Slot(entry=mechanisms.find(spec["name"]), site=site, knobs=spec["knobs"])
    try:
        finding = compiled(slot)
    except Exception as error:  # whatever it is, the card tells it
        text = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:160]}"
        header = "Python.h" in str(error)  # the compiler is there, the headers of Python are not
        finding = Finding("not applicable" if header else "fail", f"torch.compile raised {text}")
    print(json.dumps(finding))


if __name__ == "__main__":
    main()
