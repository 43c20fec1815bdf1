"""The fault suite: what goes wrong around a worker, on a large scale, and a ledger of what came of it: README.md."""
