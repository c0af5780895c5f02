"""What watches a model after its release: it learns what is normal, and says when and where that stops.

A window of traffic is kept as sums alone (`sketch`), which merge by addition and hold no row. Four weeks of windows
make a baseline (`baseline`): season, autocorrelation, spread. Each new window is held against it (`detect`) at a rate
of false alarms that is a setting of the plan (`plan`). `attending` does that again and again as a service; `rules`
writes what Prometheus needs to alert, and `deploys` reads the journals of rollouts and switches. Nothing here talks to
a server.
"""
