"""Where the control plane keeps its state: keys, revisions, leases, and a watch on what changes.

The nouns: an `Entry` is what one key holds; a `Write` changes one key, and several of them make a
batch, which takes effect whole or not at all; each batch that changes anything gets the next
**revision**, one number for the whole store; a **lease** ends keys that nobody keeps alive; a watch
yields an `Event` for each change after a revision.

`protocol` says what a store does, and is all that the rest of the control plane knows of it.
`sqlite` does it in one file. What every store must pass is `tests/control/store/conformance.py`.
"""
