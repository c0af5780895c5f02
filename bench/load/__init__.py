"""Open-loop load on Locust: the payload, the locustfile (the only importer of locust) and the subprocess around it."""
