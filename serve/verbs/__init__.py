"""Floor 2's verbs, one file per topic, imported when they are called."""

PANEL = "serve: place, run, ship"
VERBS = {
    "register": "placing:register",
    "place": "placing:place",
    "lint": "linting:lint",
    "up": "operating:up",
    "down": "operating:down",
    "switch": "operating:switch",
    "supervise": "operating:supervise",
    "ship": "shipping:ship",
    "tune": "tuning:tune",
    "render": "kubernetes:render",
    "audit": "audit:audit",
    "shadow": "shadow:app",
    "edge": "edge:edge",
    "routes": "edge:routes",
    "rollout": "rollout:app",
    "approve": "governing:approve",
    "review": "governing:review",
    "catalogue": "retiring:catalogue",
    "retire": "retiring:retire",
    "trail": "governing:trail",
    "learn": "monitoring:learn",
    "watch": "monitoring:watch",
    "estimate": "estimating:estimate",
    "outcomes": "outcomes:app",
}
