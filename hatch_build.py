"""Compiles the CPU kernels into the wheel where a C compiler is at hand; a pure wheel otherwise."""

import importlib.util
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "src/regrow/execution/csr"
KERNELS = f"{PACKAGE}/kernels"


class KernelsHook(BuildHookInterface):  # type: ignore[type-arg]
    """Builds one shared library with a C interface: one wheel a platform, whatever the Python."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile in place; editable installs use the file where it lies."""
        if self.target_name != "wheel":
            return
        build = self._build_module()
        library = Path(self.root) / KERNELS / build.library_name()
        if not self._compiled(build, library):
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        build_data["artifacts"].append(f"{KERNELS}/{build.library_name()}")

    def _compiled(self, build: ModuleType, library: Path) -> bool:
        """Compile, for one thread if need be; say why not where it cannot be done."""
        reasons = []
        for openmp in (True, False):
            try:
                build.compile_library(library, openmp)
            except (build.NoLibraryError, OSError) as error:
                reasons.append(str(error))
            else:
                return True
        library.unlink(missing_ok=True)
        self.app.display_warning(f"sparse layers will compute with torch: {'; '.join(reasons)}")
        return False

    def _build_module(self) -> ModuleType:
        path = Path(self.root) / PACKAGE / "build.py"
        spec = importlib.util.spec_from_file_location("regrow_kernels_build", path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module
