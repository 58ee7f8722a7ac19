# The measurements, and what only the platform's own checkout has; the Makefile includes it where it is there.
.PHONY: bench-cycle bench-serving bench-swaps bench-canary bench-monitor bench-throughput bench-texts bench-tune bench-backtest bench-scale bench-trace bench-soak docs

bench-cycle: $(READY)  ## a cycle against a bare script, side by side
	@python -m benchmarks.cycle

bench-serving: $(READY)  ## requests/s and latency beside MLflow, FastAPI and BentoML; a quarter of an hour, needs wrk
	@python -m benchmarks.serving --page docs/benchmarks/serving.md

bench-swaps: $(READY)  ## releases change, fail and are killed under load; a quarter of an hour
	@python -m benchmarks.swaps --page docs/benchmarks/swaps.md

bench-canary: $(READY)  ## good and bad releases through replay and canary, on the year of flights; ten minutes
	@python -m benchmarks.canary --page docs/benchmarks/canary.md

bench-monitor: $(READY)  ## the monitor's promises on the year of flights: drift, estimated quality, the gate; half an hour
	@python -m benchmarks.monitor --page docs/benchmarks/monitor.md --picture docs/pictures/estimate.png

bench-throughput: $(READY)  ## the monitor on five million logged predictions, beside a notebook; after make run, seven minutes
	@python -m benchmarks.throughput --rows 5000000 --page docs/benchmarks/throughput.md

bench-texts: $(READY)  ## drift of texts that are made: nonsense, another language, no change; 25 minutes
	@python -m benchmarks.texts

bench-tune: $(READY)  ## studies of hyper-parameters: one table for any number of processes and kills; tuned through the gate; half an hour
	@python -m benchmarks.tune --page docs/benchmarks/tune.md

bench-families: $(READY)  ## LightGBM and XGBoost behind the router, beside MLServer in an environment of its own; needs wrk
	@python -m benchmarks.families --page docs/benchmarks/families.md

bench-backtest: $(READY)  ## a year of flights lived through under each retrain policy, side by side
	@bin/evergreen backtest --source upstream --page docs/benchmarks/backtest.md --picture docs/pictures/backtest.png

bench-scale: $(READY)  ## batch scoring beside a plain loop, a history by one and by two workers; after make run, five minutes
	@python -m benchmarks.scale

bench-trace: $(READY)  ## stories of predictions in a warm process, and who was live at 100,000 instants; after make run, two minutes
	@python -m benchmarks.trace

bench-soak: $(READY)  ## the loop under 200 random schedules of events and kills, half an hour or more (SEED=1000 for others)
	@python -m tests.loop.soak --schedules 200 --kills 200 --seed $(or $(SEED),1) --every registry,settled,books

docs: $(READY)  ## write what is generated of docs/
	@python -m tests.repository.skip_table
