"""Agreement that no single client decides: a verdict that does not hold without some client's inputs is open.

Pure. Inputs are the callers': one with a key can send noise on which every two versions differ, or thousands of easy
inputs that hide where they do. Where only one client says so, people have to look at that client's inputs.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .agreement import Agreement, AgreementLimits, agreement
from .differing import Differing

_LARGEST = 5  # clients that are left out in turn


def unanimous(found: Sequence[Differing], limits: Mapping[str, AgreementLimits], **settings: Any) -> Agreement:
    """Judge everything that was compared, and again without each of the largest clients; `settings`: `agreement`.

    A FAIL that is none without one client, and a PASS that is a FAIL without one, are INCONCLUSIVE and name the client.
    Callers without a key are one client, and where there are no others they decide.
    """
    whole = agreement(found, limits, **settings)
    clients = Counter(each.client for each in found)
    if whole.outcome == "INCONCLUSIVE" or len(clients) < 2:
        return whole
    suspects = dict.fromkeys([client for client, _ in clients.most_common(_LARGEST)])
    suspects |= dict.fromkeys(each.client for each in whole.worst)
    for client in suspects:
        rest = agreement([each for each in found if each.client != client], limits, **settings)
        if (whole.outcome == "FAIL") != (rest.outcome == "FAIL"):
            said = "; ".join((whole if whole.outcome == "FAIL" else rest).reasons[:1])
            only = "only the inputs of" if whole.outcome == "FAIL" else "all inputs but those of"
            reason = f"{only} client {client or 'without a key'} disagree: {said}"
            return replace(whole, outcome="INCONCLUSIVE", reasons=(reason,))
    return whole
