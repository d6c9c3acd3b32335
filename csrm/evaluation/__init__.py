"""How well a model judges and obeys: suites, probes, figures with intervals."""
