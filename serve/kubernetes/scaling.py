"""More servers when requests wait: the autoscaler on mean time in the queue, and the rule that makes that a metric.

Pure. Processor use says little about a server that batches; time in the queue is what a user waits for. Triton counts
it (``nv_inference_queue_duration_us``), and prometheus-adapter must divide it by the requests that succeeded. Requests
turned away because the queue was full are in neither count.
"""

from .cluster import Cluster, Environment
from .names import labels, versioned
from .pod import Object
from .source import Source

METRIC = "triton_queue_microseconds"
_COUNT, _QUEUED = "nv_inference_request_success", "nv_inference_queue_duration_us"


def autoscaler(source: Source, cluster: Cluster, environment: Environment) -> Object:
    """Quick to grow, slow to shrink: a server that left takes its warm caches along."""
    name = versioned(source.model, source.version)
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "labels": labels(source.model, source.version)},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": environment.least,
            "maxReplicas": environment.most,
            "metrics": [
                {
                    "type": "Pods",
                    "pods": {
                        "metric": {"name": METRIC},
                        "target": {"type": "AverageValue", "averageValue": str(cluster.queue_us)},
                    },
                }
            ],
            "behavior": {
                "scaleUp": {
                    "stabilizationWindowSeconds": 0,
                    "policies": [{"type": "Percent", "value": 100, "periodSeconds": 30}],
                },
                "scaleDown": {
                    "stabilizationWindowSeconds": 300,
                    "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
                },
            },
        },
    }


def adapter_rule() -> Object:
    """The rule for prometheus-adapter, under its ``rules.custom``; an idle server has a queue of 0 and not of 0/0."""
    queued, served = (f"sum(rate({each}{{<<.LabelMatchers>>}}[1m])) by (<<.GroupBy>>)" for each in (_QUEUED, _COUNT))
    return {
        "rules": {
            "custom": [
                {
                    "seriesQuery": f'{_QUEUED}{{namespace!="",pod!=""}}',
                    "resources": {"overrides": {"namespace": {"resource": "namespace"}, "pod": {"resource": "pod"}}},
                    "name": {"matches": f"^{_QUEUED}$", "as": METRIC},
                    "metricsQuery": f"{queued} / clamp_min({served}, 0.001)",
                }
            ]
        }
    }
