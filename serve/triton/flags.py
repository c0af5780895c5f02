"""The flags that a server must be started with so that deployments mean what they say; Triton is silent without.

Only says which; starting servers is another room's business.
"""

from collections.abc import Iterable

from ..deployment import Broken, Deployment


def server_flags(deployments: Iterable[Deployment]) -> tuple[str, ...]:
    """Flags for one server that is to serve all of these; none where no deployment needs any.

    The rate limiter is off unless asked for, and a response cache of no size is no cache: its size is for the whole
    server, so the largest that a deployment asks for counts.

    Raises:
        ConfigRuleError: two deployments mean different things by one resource.
    """
    chosen = tuple(deployments)
    flags: list[str] = []
    resources = [each for deployment in chosen for each in deployment.instances.resources]
    if resources or any(deployment.instances.priority for deployment in chosen):
        flags.append("--rate-limit=execution_count")
    for name in sorted({each.name for each in resources}):
        meant = [each for each in resources if each.name == name]
        if len({each.everywhere for each in meant}) > 1:
            raise Broken(
                field="instances.resources",
                rule=f"{name} is for each device in one deployment and everywhere in another; Triton refuses that",
                mend="say the same in both",
            ).error()
        pools = [each.available for each in meant if each.available is not None]
        if pools and max(pools) < max(each.count for each in meant):
            raise Broken(
                field="instances.resources.available",
                rule=f"one deployment needs more of {name} than there is by another",
                mend="raise it",
            ).error()
        flags += [f"--rate-limit-resource={name}:{max(pools)}"] if pools else []
    caches = [each.response_cache.size_bytes for each in chosen if each.response_cache is not None]
    return (*flags, f"--cache-config=local,size={max(caches)}") if caches else tuple(flags)
