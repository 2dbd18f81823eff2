"""Git: a file as it is in the working tree or in a commit, and the commit to compare with."""

import shutil
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MAX_BYTES = 2**28  # of a file; a table of predictions has about 32 bytes per image
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
UNSHALLOW = "run `git fetch --unshallow`, or set `fetch-depth: 0` in GitHub Actions"


@dataclass(frozen=True)
class Revision:
    """A commit, or the working tree where `commit` is None; `name` is for people."""

    name: str
    commit: str | None = None

    def read(self, path: str) -> bytes | None:
        """The content of a file, None if there is no such file; `path` is relative to this folder.

        Links are followed. Raises OSError if there is a file whose content cannot be read, and
        ValueError if there is something else or more than MAX_BYTES.
        """
        content = _read_file(path) if self.commit is None else _read_blob(self, path)
        if content is None:
            return None
        if len(content) > MAX_BYTES:
            raise ValueError(f"{self.where(path)}: found more than {MAX_BYTES:,} bytes")
        if content.startswith(LFS_POINTER):
            raise ValueError(
                f"{self.where(path)}: found a Git LFS pointer; expected the file itself; keep what"
                " the gate reads out of LFS, since commits hold only pointers"
            )
        return content

    def where(self, path: str) -> str:
        """What messages call the file at `path`."""
        return path if self.commit is None else f"{path} of {self.name}"


def _read_file(path: str) -> bytes | None:
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path}: not a regular file; expected one that the pipeline wrote")
    with Path(path).open("rb") as file:
        return file.read(MAX_BYTES + 1)


@cache  # a commit does not change
def _read_blob(revision: Revision, path: str) -> bytes | None:
    # The answer is one line, HASH blob SIZE, and the content, or a line that says why not.
    name = f"{revision.commit}:./{path}".replace("\n", "\N{REPLACEMENT CHARACTER}")
    shown = git("cat-file", "--batch", "--follow-symlinks", stdin=name.encode())
    head, _, content = shown.stdout.partition(b"\n")
    if b" blob " in head and not head.endswith(b" missing"):
        return content[: int(head.split()[-1])]
    listed = git("ls-tree", str(revision.commit), "--", f"./{path}")
    if listed.stdout or listed.returncode:
        # a folder, a link that leads nowhere, a partial clone that is offline, or a broken one
        failed = next((result for result in (shown, listed) if result.returncode), None)
        reason = last_line(failed) if failed else head.decode(errors="replace")
        raise OSError(f"{revision.where(path)}: git cannot read its content: {reason[:200]}")
    return None


WORKING_TREE = Revision("the working tree")


def git(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run git in this folder, whatever its exit code. Raises OSError if git is not installed."""
    command = shutil.which("git")
    if command is None:
        raise OSError("git is not installed, and the committed results are read from git")
    return subprocess.run([command, *arguments], input=stdin, capture_output=True, check=False)


def last_line(result: subprocess.CompletedProcess[bytes]) -> str:
    """The last line that a command wrote to standard error."""
    lines = result.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
    return lines[-1].removeprefix("fatal: ")


def commit_of(revision: str) -> str | None:
    """The full hash of the commit that `revision` names, None if this clone does not have it."""
    found = git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    commit = found.stdout.decode(errors="replace").strip()
    # `^main` would be answered with a hash after a caret.
    return commit if found.returncode == 0 and commit.isalnum() else None


def named(revision: str) -> Revision:
    """The commit that `revision` names. Raises ValueError if this clone does not have it."""
    shallow = _is_shallow()
    commit = commit_of(revision)
    if commit is None:
        remedy = UNSHALLOW if shallow else "`git fetch` gets those of the remote"
        raise ValueError(f"no revision {revision[:100]!r} in this clone; {remedy}")
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
        raise ValueError(
            f"no branch {target} in this clone; `git fetch` gets it, or if it has been renamed,"
            f" `git remote set-head {target.partition('/')[0]} --auto` finds its new name"
        )
    if commit_of("HEAD") is None:
        raise ValueError("no commit here yet, so nothing to compare; `git commit` makes one")
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
