"""Bundles on the Hugging Face hub, through `huggingface_hub`, which `tokenizers` brings along.

Its own environment variables hold: `HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN`, `HF_HUB_OFFLINE`.
"""

from pathlib import Path

from vlrt.bundle import MANIFEST, SETTINGS_FILES, Origin
from vlrt.errors import BundleNotFoundError


def resolve(
    repository: str, revision: str | None, *, offline: bool
) -> tuple[Path, Origin, list[str]]:
    """Find a repository, download its settings files, and list all that it holds.

    Args:
        repository: `owner/name`.
        revision: branch, tag or commit; None is the main branch.
        offline: use only what the cache holds.

    Returns:
        The snapshot's directory, the origin pinned to the commit, and the file names.

    Raises:
        BundleNotFoundError: no such directory, repository or revision, or the hub is out of reach.
    """
    import huggingface_hub
    from huggingface_hub import constants, errors

    offline = offline or constants.HF_HUB_OFFLINE
    wanted = [MANIFEST, *SETTINGS_FILES]
    try:
        if offline:
            root = Path(
                huggingface_hub.snapshot_download(
                    repository, revision=revision, allow_patterns=wanted, local_files_only=True
                )
            )
            names = [p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()]
            return root, Origin(repository, root.name, offline=True), names
        # By the name that was asked for, so that the cache learns which commit it stands for: it is
        # what offline mode goes by. All else is by that commit.
        root = Path(
            huggingface_hub.snapshot_download(repository, revision=revision, allow_patterns=wanted)
        )
        info = huggingface_hub.HfApi().model_info(repository, revision=root.name)
    except (errors.HFValidationError, errors.RepositoryNotFoundError) as error:
        raise BundleNotFoundError(
            f"{repository!r} is neither a directory here nor a repository that the hub shows you"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise BundleNotFoundError(f"{repository} has no revision {revision!r}") from error
    except errors.LocalEntryNotFoundError as error:
        where = (
            "offline, and the hub's cache" if offline else "the hub is out of reach and its cache"
        )
        raise BundleNotFoundError(
            f"{repository!r} is no directory here; {where} does not hold it"
        ) from error
    except Exception as error:  # its transport's own, of other types in each of its versions
        raise BundleNotFoundError(
            f"{repository!r} is no directory here, and the hub cannot be asked for it: {error}; "
            "what its cache holds loads with offline=True"
        ) from error
    names = [sibling.rfilename for sibling in info.siblings or []]
    return root, Origin(repository, root.name, offline=False), names


def download(origin: Origin, names: list[str]) -> None:
    """Bring files into the cache's snapshot, those already there excepted.

    Raises:
        BundleNotFoundError: a file is not on the hub, or offline not in the cache.
    """
    import huggingface_hub

    for name in names:
        try:
            huggingface_hub.hf_hub_download(
                origin.repository,
                name,
                revision=origin.revision,
                local_files_only=origin.offline,
            )
        except Exception as error:  # as above
            raise BundleNotFoundError(
                f"cannot get {name} of {origin.repository}: {error}"
            ) from error
