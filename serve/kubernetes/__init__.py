"""The same rollout in a cluster: manifests from a deployment and its routes, and a router on HTTPRoutes.

Manifests are plain values until the last step; nothing here but `on_kubectl` talks to a cluster. Experimental
(`optimize.experimental.KUBERNETES`).
"""
