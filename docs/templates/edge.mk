# Include from a Makefile: `include edge.mk`, then `make edge`.
EDGE          ?= edge-harness
EDGE_MODEL    ?= smollm2-135m
EDGE_BUDGETS  ?= budgets.toml
EDGE_RESULTS  ?= edge-results

.PHONY: edge edge-run edge-gate edge-report edge-clean

edge: edge-gate edge-report

EDGE_SINCE    := $(shell date -u +%Y-%m-%dT%H:%M:%SZ)

# A run that fails leaves no record, or one that says so: the gate is red for both, and takes no run of another day.
edge-run:
	-$(EDGE) run $(EDGE_MODEL) --out $(EDGE_RESULTS)

edge-gate: edge-run
	$(EDGE) gate --budget $(EDGE_BUDGETS) --since $(EDGE_SINCE) $(EDGE_RESULTS)

edge-report: edge-run
	$(EDGE) report $(EDGE_RESULTS) -o edge-report.html

edge-clean:
	rm -rf $(EDGE_RESULTS) edge-report.html
