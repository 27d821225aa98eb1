"""A stand-in for huggingface_hub on a machine without a network."""

import sys
import types


def no_network(monkeypatch, use: str = '') -> None:
    """Replaces huggingface_hub by one whose cache is empty and which reaches no server.

    Args:
      monkeypatch: pytest's fixture.
      use: if not empty, a use of the hub fails the test: what it would have done.
    """
    hub, errors = types.ModuleType('huggingface_hub'), types.ModuleType('huggingface_hub.errors')
    for name in ('HFValidationError', 'RepositoryNotFoundError', 'RevisionNotFoundError', 'EntryNotFoundError'):
        setattr(errors, name, type(name, (Exception,), {}))
    errors.GatedRepoError = type('GatedRepoError', (errors.RepositoryNotFoundError,), {})
    errors.LocalEntryNotFoundError = type('LocalEntryNotFoundError', (errors.EntryNotFoundError,), {})

    def hf_hub_download(name, file, revision=None, local_files_only=False):
        assert not use, use
        raise errors.LocalEntryNotFoundError(f'{file} of {name} is not cached')

    hub.errors, hub.hf_hub_download = errors, hf_hub_download
    monkeypatch.setitem(sys.modules, 'huggingface_hub', hub)
    monkeypatch.setitem(sys.modules, 'huggingface_hub.errors', errors)
