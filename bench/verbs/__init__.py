"""Floor 1's verbs by topic: thin skins over library functions, imported when they are called."""

PANEL = "bench: measure and judge"
VERBS = {
    "measure": "measure:measure",
    "load": "load:load",
    "capacity": "capacity:capacity",
    "gate": "gate:gate",
    "aa": "trials:aa",
    "drill": "trials:drill",
    "quality": "quality:quality",
    "ledger": "ledger:ledger",
    "report": "report:report",
    "trend": "trend:trend",
    "baseline": "baseline:app",
}
