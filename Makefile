PYTHON ?= python3
# Not ?=: a HOST or a PORT of the environment is somebody else's (conda, tcsh)
PORT = 13337
LISTEN = 0.0.0.0
HOST = 127.0.0.1
N = 1000
SEED =
T =

.PHONY: help run-server run-client test worlds bench clean

help:
	@echo "make run-server   lance le serveur (PORT=$(PORT) LISTEN=$(LISTEN))"
	@echo "make run-client   lance le client  (PORT=$(PORT) HOST=$(HOST))"
	@echo "make test         lance les tests (PYTHON=$(PYTHON) ; T=Replies ne lance que ceux de ce nom)"
	@echo "make worlds       simule des mondes (N=$(N), deux minutes ; N=50, cinq secondes ; SEED=123 en rejoue un)"
	@echo "make bench        compare le serveur à d'autres (une minute et demie)"
	@echo "make clean        efface d'ici les journaux et les caches de Python"

run-server:
	@mkdir -p /var/log/bs_server 2>/dev/null || true
	@ulimit -n "$$(ulimit -Hn)" 2>/dev/null; exec $(PYTHON) server.py -p $(PORT) -l $(LISTEN)

run-client:
	@mkdir -p /var/log/bs_client 2>/dev/null || true
	@$(PYTHON) client.py -p $(PORT) -H $(HOST)

test:
	@t='$(T)'; N= SEED= PYTHONPATH=.ci:. $(PYTHON) -B -m unittest $${t:+-k "$$t"} worlds test_bs

worlds:
	@N=$(N) SEED=$(SEED) PYTHONPATH=.ci:. $(PYTHON) -B -m unittest worlds

bench:
	@$(PYTHON) -B .ci/bench.py

clean:
	rm -rf __pycache__ .ruff_cache bs_server.log bs_server.log.1 bs_client.log bs_client.log.1
