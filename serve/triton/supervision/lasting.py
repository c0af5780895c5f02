"""Start of the server that stays: switches that were interrupted are finished or undone before it reads the disk.

Joins the server and the journaled switch; the process itself is `serve.triton.running.on_pytriton`'s business.
"""

from functools import partial

from ..running import on_pytriton
from .switch import recover_all

up = partial(on_pytriton.up, recover=partial(recover_all, None))
"""`on_pytriton.up`, with interrupted switches recovered first."""
