"""Digests of the code that each release of seatrial shipped into placed versions of the Python backend.

What serves is compared with this table and not with the record beside it: a user who can change the code can change the
record as well. A version's code must be that of one release as a whole, so that old helpers cannot be mixed in.

A change of ``python_*.py`` here appends its set: ``python -m seatrial.serve.triton.backend.releases`` prints it. No set
is removed, since versions that were placed with it go on serving; remove one only to withdraw a release whose code must
not run any more, and say so in the changelog. Tests hold that the last set is the code in this folder and that no set
of the repository's history is missing.
"""

from collections.abc import Mapping

from seatrial.optimize.artifact import digest_file

from . import PLACED_CODE

_CACHE = "sha256:3e9aef375e450b266dadc6ee6efc5faf87ba39dbdc861916f66201ccf86137f9"
_SESSION = "sha256:d77c1d78cca24f1dc08df3563d226ace613624fff1bb268e6b480d7e5d72f3fd"
_REMEMBERING = "sha256:20ee4d035ca35939712c7810e8df84a211308fd91f42dda64e699b8273f020ee"

RELEASES: tuple[Mapping[str, str], ...] = (
    {"model.py": "sha256:bc4ff9c5c3ec7e0eae767af7fb052e59cb489b6b4ffed17927ececd6c2acb4b2"},
    {
        "model.py": "sha256:58d8ee6be6e2a6bbabe3362795ec441e0d31ec4631a8581c372cf98afb3aaa70",
        "python_cache.py": _CACHE,
        "python_remembering.py": "sha256:c6dfe075e805ae90d2612be1debf72d048b7dfc8a282f8126f9e12d2af163f6d",
        "python_session.py": _SESSION,
    },
    {
        "model.py": "sha256:3d8671b1cc248757d8ab0e0c4080ed586c4f6c76147df21d2f8a3040bfb95b8c",
        "python_cache.py": _CACHE,
        "python_remembering.py": _REMEMBERING,
        "python_session.py": _SESSION,
    },
    {
        "model.py": "sha256:3e2c4ff4bddd6c93c84e619fffff99536cd1651d96a107adabca6cb5cfe0bf53",
        "python_cache.py": _CACHE,
        "python_remembering.py": _REMEMBERING,
        "python_session.py": _SESSION,
    },
    {
        "model.py": "sha256:f506bbe168be7667311732ed3312070924fc4e01cfc76c5cf9d7e7a147144143",
        "python_cache.py": _CACHE,
        "python_remembering.py": _REMEMBERING,
        "python_session.py": "sha256:d34981750608fc5a1d1e7a9e3703bb61d6e402bf9d060b2694a5b3e67f5b0b59",
    },
    {
        "model.py": "sha256:c205e6a746db6d9fcfdcd3c76d872bb40c25e1518527ddee1f238bf7452827b0",
        "python_cache.py": _CACHE,
        "python_onnxruntime.py": "sha256:bc8052b79cb983af05014942249eba1fc6c4abe1912785cd55e27746e446032e",
        "python_openvino.py": "sha256:18d93167aa9be698389715476f3ee2184093510db6f72f76e620418b1ef893e1",
        "python_remembering.py": _REMEMBERING,
        "python_session.py": "sha256:b562014273fb80cd97935b8fc93969459f984d8693242f76ba64f7f15eb3900f",
        "python_torch.py": "sha256:84ab6aa24de4ddb522312c140fbc64918139b33b3e59f1179ef51ad0f8c34a40",
    },
    {
        "model.py": "sha256:0f0bfea610b9b89079734d94b6211bccba73403daf12e8c3ce3fd49a55e3e70e",
        "python_cache.py": "sha256:266624e2354cb10488b6845049d99ea50befe3489959e4e33fd6e57afebd7032",
        "python_onnxruntime.py": "sha256:769009eab23380b78fba42668abbff4142f1c8cd99fc48d3706b78cf64e781d1",
        "python_openvino.py": "sha256:a2aa5f8010304781a112fc44134ffe01686d6dec2618a1d74c1b9121216d2d01",
        "python_remembering.py": _REMEMBERING,
        "python_session.py": "sha256:d42b748ea40fcb276a172cc1242efc658fea2c87008db9912df3c98fe239b5da",
        "python_torch.py": "sha256:0252abae8fc4923a8014b1bde23a9e467052847ac7c99ae265bc7547958b1a13",
    },
)
"""Code of each release by its name in a version, oldest first; the last is the current release."""
NAMES = frozenset(name for release in RELEASES for name in release)


def current() -> dict[str, str]:
    """Return the digests of the code in this folder, which `place` copies."""
    return {name: digest_file(source) for name, source in sorted(PLACED_CODE.items())}


if __name__ == "__main__":
    print(current())
