"""Git: a file as it is in the working tree or in a commit, and the commit to compare with."""

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

UNSHALLOW = "`git fetch --unshallow` brings the rest; in GitHub Actions, `fetch-depth: 0`"


@dataclass(frozen=True)
class Revision:
    """A commit, or the working tree where `commit` is None; `name` is for people."""

    name: str
    commit: str | None = None

    def read(self, path: str) -> bytes | None:
        """The file's bytes, or None where there is no such file; `path` is from this folder."""
        if self.commit is None:
            try:
                return Path(path).read_bytes()
            except FileNotFoundError:
                return None
        shown = git("cat-file", "blob", f"{self.commit}:./{path}")
        if shown.returncode == 0:
            return shown.stdout
        if git("ls-tree", self.commit, "--", f"./{path}").stdout:  # as in a partial clone, offline
            raise OSError(
                f"{self.where(path)}: git has its name but not its content: {told(shown)}"
            )
        return None

    def where(self, path: str) -> str:
        """The file's name in messages."""
        return path if self.commit is None else f"{path} of {self.name}"


WORKING_TREE = Revision("the working tree")


def git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run git in this folder, whatever its exit code. Raises OSError where there is no git."""
    command = shutil.which("git")
    if command is None:
        raise OSError("git is not installed; the gate reads the base from git")
    return subprocess.run([command, *arguments], capture_output=True, check=False)


def told(result: subprocess.CompletedProcess[bytes]) -> str:
    """The last line that a command wrote to standard error."""
    lines = result.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
    return lines[-1].removeprefix("fatal: ")


def commit_of(revision: str) -> str | None:
    """The full hash of the commit that `revision` names, if this clone has it."""
    found = git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    return found.stdout.decode().strip() if found.returncode == 0 else None


def find_base(revision: str | None, environment: Mapping[str, str]) -> Revision:
    """The commit to compare with: `revision` itself, or the merge base with the target branch.

    The target is the pull request's (GITHUB_BASE_REF, which GitHub Actions sets), or the remote's
    main branch, as git has noted it. Where that is not known it is not guessed: raises ValueError,
    with what to do.
    """
    inside = git("rev-parse", "--is-shallow-repository")
    if inside.returncode:
        raise ValueError(f"no git repository here, and so no base: {told(inside)}")
    shallow = inside.stdout.strip() == b"true"
    if revision is not None:
        commit = commit_of(revision)
        if commit is None:
            remedy = UNSHALLOW if shallow else "`git fetch` brings a remote's; `git log` shows them"
            raise ValueError(f"no revision {revision!r} in this clone; {remedy}")
        return Revision(f"{revision} ({commit[:7]})", commit)
    if shallow:
        raise ValueError(f"this clone is shallow and may lack the base; {UNSHALLOW}")
    target = _target(environment)
    if commit_of(target) is None:
        raise ValueError(f"no branch {target} in this clone; `git fetch` brings it")
    merge_base = git("merge-base", "HEAD", target)
    if merge_base.returncode:
        raise ValueError(f"HEAD has no commit in common with {target}; name one: --base REVISION")
    commit = merge_base.stdout.decode().strip()
    return Revision(f"the merge base with {target} ({commit[:7]})", commit)


def _target(environment: Mapping[str, str]) -> str:
    remotes = git("remote").stdout.decode().split()
    if not remotes:
        raise ValueError("no remote, and so no main branch of it; name the base: --base REVISION")
    if len(remotes) > 1 and "origin" not in remotes:
        raise ValueError(
            f"several remotes ({', '.join(remotes)}) and none is origin;"
            " name the base: --base REVISION"
        )
    remote = "origin" if "origin" in remotes else remotes[0]
    if branch := environment.get("GITHUB_BASE_REF"):
        return f"{remote}/{branch}"
    head = git("symbolic-ref", "--quiet", "--short", f"refs/remotes/{remote}/HEAD")
    if head.returncode:
        raise ValueError(
            f"the main branch of {remote} is not known here;"
            f" `git remote set-head {remote} --auto` asks for it"
        )
    return head.stdout.decode().strip()
