"""Compiles the CPU kernels into the wheel; nothing is left out of a wheel without a word.

``REGROW_KERNELS`` means here what it means at run time: ``native`` asks for the library, ``torch``
for a wheel without it. Not set: it is compiled where there is a C compiler; one that fails
stops the build. pip hides what a build that succeeds says: a wheel without it carries the reason.
"""

import importlib.util
import os
import re
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

PACKAGE = "src/regrow/execution/csr"
KERNELS = f"{PACKAGE}/kernels"
WAYS_ON = (
    "The wheel has no library of C kernels. Mend what the compiler says and build again; or build "
    "a wheel whose sparse layers compute with torch, which is slower: "
    "REGROW_KERNELS=torch pip install ."
)


class KernelsHook(BuildHookInterface):  # type: ignore[type-arg]
    """Builds one shared library with a C interface: one wheel a platform, whatever the Python."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile in place; editable installs use the file where it lies."""
        if self.target_name != "wheel":
            return
        build = self._build_module()
        library = Path(self.root) / KERNELS / build.library_name()
        why = Path(self.root) / KERNELS / build.WHY_NOT
        if reason := self._missing(build, library):
            self.app.display_warning(f"sparse layers will compute with torch: {reason}")
            why.write_text(reason, "utf-8")
            library.unlink(missing_ok=True)
            build_data["artifacts"].append(f"{KERNELS}/{why.name}")
            return
        why.unlink(missing_ok=True)
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        build_data["artifacts"].append(f"{KERNELS}/{library.name}")

    def _missing(self, build: ModuleType, library: Path) -> str:
        """Compile; return why there is no library, nothing if there is one.

        Raises:
            RuntimeError: a compiler is there and did not make it, or it was asked for.
        """
        wanted = os.environ.get("REGROW_KERNELS", "")
        if wanted not in ("", "native", "torch"):
            raise RuntimeError(
                f"REGROW_KERNELS={wanted!r} is not allowed: native, torch or nothing"
            )
        if wanted == "torch":
            return "it was built with REGROW_KERNELS=torch"
        try:
            build.chosen_compiler()
        except build.NoLibraryError as error:
            if wanted == "native":
                raise RuntimeError(f"REGROW_KERNELS=native, but {error}") from error
            return str(error)
        return self._compile(build, library)

    @staticmethod
    def _compile(build: ModuleType, library: Path) -> str:
        """Compile, for one thread where the compiler refuses OpenMP."""
        reasons = []
        for openmp in (True, False):
            try:
                build.compile_library(library, openmp)
            except (build.NoLibraryError, OSError) as error:
                reasons.append(str(error))
                if not getattr(error, "refused", False):
                    break  # it hung, was killed, or the disk is full: other options do not help
            else:
                return ""
        raise RuntimeError(f"{'; '.join(reasons)}\n{WAYS_ON}")

    def _build_module(self) -> ModuleType:
        path = Path(self.root) / PACKAGE / "build.py"
        spec = importlib.util.spec_from_file_location("regrow_kernels_build", path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module


class AddressesHook(MetadataHookInterface):
    """Writes the project's addresses and a README whose links work outside the repository.

    Both follow from ``home`` in ``[tool.hatch.metadata.hooks.custom]``, the repository's address.
    While it is empty there is nothing to link to: links to files become their words.
    """

    def update(self, metadata: dict[str, Any]) -> None:
        """Fill in what is ``dynamic``."""
        home = str(self.config.get("home", "")).rstrip("/")
        if home and not home.startswith("https://"):
            raise ValueError(f"home={home!r} of tool.hatch.metadata.hooks.custom: not https://...")
        text = (Path(self.root) / "README.md").read_text("utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": outside(text, home)}
        metadata["urls"] = addresses(home)


def addresses(home: str) -> dict[str, str]:
    """Return what an index shows beside a project; nothing without a home."""
    pages = {"Source": "", "Documentation": "/tree/main/docs", "Issues": "/issues"}
    pages["Changelog"] = "/blob/main/CHANGELOG.md"
    return {name: home + page for name, page in pages.items()} if home else {}


def outside(text: str, home: str) -> str:
    """Return Markdown with links to files of the repository made absolute, or taken out."""

    def changed(link: re.Match[str]) -> str:
        words, target = link[1], link[2]
        if re.match(r"[a-z]+:|#", target):
            return link[0]
        return f"[{words}]({home}/blob/main/{target})" if home else words

    return re.sub(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)", changed, text)
