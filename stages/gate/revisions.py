"""Git: a file as it is in the working tree or in a commit, and the commit to compare with."""

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

UNSHALLOW = "run `git fetch --unshallow`, or set `fetch-depth: 0` in GitHub Actions"


@dataclass(frozen=True)
class Revision:
    """A commit, or the working tree where `commit` is None; `name` is for people."""

    name: str
    commit: str | None = None

    def read(self, path: str) -> bytes | None:
        """The content of a file, None if there is no such file; `path` is relative to this folder.

        Raises OSError if git knows the file but cannot read its content.
        """
        if self.commit is None:
            try:
                return Path(path).read_bytes()
            except FileNotFoundError:
                return None
        shown = git("cat-file", "blob", f"{self.commit}:./{path}")
        if shown.returncode == 0:
            return shown.stdout
        if git("ls-tree", self.commit, "--", f"./{path}").stdout:  # a partial clone, offline
            raise OSError(f"{self.where(path)}: git cannot read its content: {last_line(shown)}")
        return None

    def where(self, path: str) -> str:
        """What messages call the file at `path`."""
        return path if self.commit is None else f"{path} of {self.name}"


WORKING_TREE = Revision("the working tree")


def git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run git in this folder, whatever its exit code. Raises OSError if git is not installed."""
    command = shutil.which("git")
    if command is None:
        raise OSError("git is not installed, and the committed results are read from git")
    return subprocess.run([command, *arguments], capture_output=True, check=False)


def last_line(result: subprocess.CompletedProcess[bytes]) -> str:
    """The last line that a command wrote to standard error."""
    lines = result.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
    return lines[-1].removeprefix("fatal: ")


def commit_of(revision: str) -> str | None:
    """The full hash of the commit that `revision` names, None if this clone does not have it."""
    found = git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    return found.stdout.decode().strip() if found.returncode == 0 else None


def named(revision: str) -> Revision:
    """The commit that `revision` names. Raises ValueError if this clone does not have it."""
    shallow = _is_shallow()
    commit = commit_of(revision)
    if commit is None:
        remedy = UNSHALLOW if shallow else "`git fetch` gets those of the remote"
        raise ValueError(f"no revision {revision!r} in this clone; {remedy}")
    return Revision(revision, commit)


def find_base(revision: str | None, environment: Mapping[str, str]) -> Revision:
    """The commit to compare with: `revision` itself, or the merge base with the target branch.

    The target is that of the pull request (GITHUB_BASE_REF, set by GitHub Actions), or the main
    branch of the remote, if git knows which one that is. Nothing is guessed: raises ValueError,
    with the remedy, if there is no such commit.
    """
    if revision is not None:
        base = named(revision)
        return Revision(f"{revision} ({str(base.commit)[:7]})", base.commit)
    if _is_shallow():
        raise ValueError(f"this clone is shallow and may lack the base; {UNSHALLOW}")
    target = _target(environment)
    if commit_of(target) is None:
        raise ValueError(f"no branch {target} in this clone; `git fetch` gets it")
    merge_base = git("merge-base", "HEAD", target)
    if merge_base.returncode:
        raise ValueError(
            f"HEAD has no commit in common with {target}; pass the base as --base REVISION"
        )
    commit = merge_base.stdout.decode().strip()
    return Revision(f"the merge base with {target} ({commit[:7]})", commit)


def _is_shallow() -> bool:
    inside = git("rev-parse", "--is-shallow-repository")
    if inside.returncode:
        raise ValueError(f"no git repository here: {last_line(inside)}")
    return inside.stdout.strip() == b"true"


def _target(environment: Mapping[str, str]) -> str:
    remotes = git("remote").stdout.decode().split()
    if not remotes:
        raise ValueError("no remote, so no main branch; pass the base as --base REVISION")
    if len(remotes) > 1 and "origin" not in remotes:
        raise ValueError(
            f"found the remotes {', '.join(remotes)}; expected one, or one called origin;"
            " pass the base as --base REVISION"
        )
    remote = "origin" if "origin" in remotes else remotes[0]
    if branch := environment.get("GITHUB_BASE_REF"):
        return f"{remote}/{branch}"
    head = git("symbolic-ref", "--quiet", "--short", f"refs/remotes/{remote}/HEAD")
    if head.returncode:
        raise ValueError(
            f"git does not know the main branch of {remote}; run `git remote set-head {remote}"
            " --auto`"
        )
    return head.stdout.decode().strip()
