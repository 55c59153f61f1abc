# Everything works on a fresh machine with Python 3.11 or newer: each target makes .venv when it is missing.
PYTHON ?= python3
PY = .venv/bin/python
ARGS ?=
AS_ON_COLAB = PYTHONPATH=$(CURDIR)/.venv/colab $(PY)  # its packages before ours

# The configuration that `cyclegan_lib.config.demo_config` holds too (a test compares them).
DEMO = --dataset_name water2wine --img_height 64 --img_width 64 --batch_size 4 --num_epochs 16 \
       --base_channels 12 --num_residual 3 --lambda_identity 5 --lr 1e-3 --average 0.99 --sample_interval 4 \
       --checkpoint_interval 0
# For comparison: the defaults of public code (batches of 1, learning rate 2e-4, nothing averaged), with the same
# small networks for as many seconds as the demo takes, and with the full ones.
TEXTBOOK = --dataset_name water2wine --img_height 64 --img_width 64 --batch_size 1 --lambda_identity 5 --lr 2e-4 \
           --sample_interval 0 --checkpoint_interval 0 --seed 0

.PHONY: demo test test-colab test-full torture lab venv lint results schematic ablation surgery elsewhere debugging zoo hidden photograph benchmark explorer page-networks page-benchmark lab-picture kernels notebooks address
demo: venv  ## water becomes wine, in minutes: make demo, or make demo ARGS=--overwrite
	$(PY) -m cyclegan_lib train $(DEMO) $(ARGS)

test: venv lint  ## the tests, and every notebook in a quick version
	$(PY) -m pytest --durations=10
	CYCLEGAN_QUICK=1 $(PY) -m pytest -p no:cacheprovider --nbval-lax --nbval-current-env \
	  --nbval-cell-timeout=600 playground.ipynb notebooks

test-colab: .venv/colab  ## what shows widgets, with the packages that Colab has (ipywidgets 7.7.1), but our torch
	$(AS_ON_COLAB) -c 'import ipywidgets; assert ipywidgets.__version__ == "7.7.1"'
	$(AS_ON_COLAB) -m pytest tests/test_widgets.py
	CYCLEGAN_QUICK=1 $(AS_ON_COLAB) -m pytest -p no:cacheprovider --nbval-lax --nbval-current-env \
	  --nbval-cell-timeout=600 playground.ipynb notebooks/05_output_norm.ipynb notebooks/07_stuck_losses.ipynb

test-full: venv lint  ## the same with the notebooks as a learner runs them
	$(PY) -m pytest
	$(PY) -m pytest -p no:cacheprovider --nbval-lax --nbval-current-env \
	  --nbval-cell-timeout=1800 playground.ipynb notebooks

torture: venv  ## small runs killed, stopped and out of room until they have to end right (half an hour), and files fuzzed
	$(PY) tests/torture.py $(ARGS)
	$(PY) -m pytest -q tests/test_fuzz.py --hypothesis-profile=torture

lab: venv  ## JupyterLab, at the playground
	.venv/bin/jupyter lab playground.ipynb

results: venv  ## the runs behind the README's figures: three seeds, one with the norm, two textbooks (half an hour)
	for seed in 0 1 2; do \
	  $(PY) -m cyclegan_lib train $(DEMO) --seed $$seed --run_name demo_none_$$seed $(ARGS) || exit; done
	$(PY) -m cyclegan_lib train $(DEMO) --seed 0 --output_norm instance --run_name demo_instance_0 $(ARGS)
	$(PY) -m cyclegan_lib train $(TEXTBOOK) --num_epochs 11 --max_steps 4280 --base_channels 12 --num_residual 3 \
	  --run_name textbook_small $(ARGS)
	$(PY) -m cyclegan_lib train $(TEXTBOOK) --num_epochs 1 --max_steps 270 --run_name textbook $(ARGS)
	$(PY) .ci/results.py
	$(PY) .ci/schematic.py

schematic: venv  ## the picture of CycleGAN, with pictures of the demo's first run: trains it where it is not there
	$(PY) -m cyclegan_lib train $(DEMO) --seed 0 --run_name demo_none_0 --resume auto
	$(PY) .ci/schematic.py

ablation: venv  ## the experiment behind notebook 05, about two hours on two cores: goes on where it was
	$(PY) -m cyclegan_lib ablation $(ARGS)

surgery: venv  ## what make ablation leaves in runs/ablation: a stuck run to continue, its pictures, its discriminators
	$(PY) .ci/surgery.py

elsewhere: venv  ## its two main arms on other pictures; needs pip install ".[openmoji]"
	$(PY) .ci/elsewhere.py $(ARGS)

debugging: venv  ## the experiment behind notebook 06, fifty minutes on two cores: goes on where it was
	$(PY) -m cyclegan_lib ablation --experiments background background_no_identity glass identity batch augmentation $(ARGS)

zoo: venv  ## the small trainings behind notebook 07, an hour on two cores: goes on where it was
	$(PY) .ci/zoo.py $(ARGS)

hidden: venv  ## the experiment behind notebook 09, an hour on two cores: goes on where it was; needs ".[openmoji]"
	$(PY) .ci/hidden.py $(ARGS)

photograph: venv  ## the longer training behind notebook 08, a quarter of an hour
	$(PY) .ci/photograph.py

benchmark: venv  ## the textbook step against ours on this machine, and the README's tables of it: goes on where it was
	$(PY) .ci/benchmark.py $(ARGS)

explorer: venv  ## data/explorer.html, its preview and the animation, from the kept networks and the tables
	$(PY) -m cyclegan_lib page
	$(PY) .ci/screenshot.py
	$(PY) .ci/animation.py

page-networks: venv  ## data/page: trains the networks that the page runs, a quarter of an hour where two cores are idle
	$(PY) .ci/page_networks.py

page-benchmark: venv  ## how fast the page's networks redraw, and the Lab trains, on this machine
	$(PY) .ci/page_benchmark.py

lab-picture: venv  ## data/demo/lab.png: the Lab after one of its experiments
	$(PY) .ci/lab.py

kernels: venv  ## the page's WebAssembly from its text form, for who changes one
	$(PY) .ci/kernels.py

notebooks: venv  ## run every notebook as a learner would, and keep the outputs
	$(PY) .ci/execute.py playground.ipynb $(wildcard notebooks/*.ipynb)

lint: venv
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	.venv/bin/lint-imports --no-logo --no-cache

address:  ## make address REPO=owner/name: write it into every badge and set-up cell
	$(PYTHON) .ci/address.py $(REPO)

venv: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[notebooks,test]'
	touch $@

.venv/colab: tests/hosts/colab.txt .venv/installed
	grep -vE '^(#|python=|torch|scikit-learn)' $< | \
	  $(PY) -m pip install --quiet --no-deps --upgrade --target $@ --requirement /dev/stdin
	touch $@
