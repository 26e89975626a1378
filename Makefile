# Two commands: `make demo` runs the whole pipeline, `make test` runs every test. Each does its own set-up.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# Debian packages: GL for pyrender (EGL + llvmpipe), X libraries bpy links to, the furniture models scenes are built from.
DEBIAN := libegl1 libgl1 libgles2 libgl1-mesa-dri libsm6 libxi6 libxfixes3 libxkbcommon0 libxrender1 libxxf86vm1 sweethome3d-furniture
DEMO ?= demo-output

.PHONY: demo test fast check setup clean
demo: setup
	$(BIN)/cavendish demo --out $(DEMO)

test: setup check
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

fast: setup
	$(BIN)/python -m pytest -q -m "not slow"

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt setup.sh
	PYTHON="$(PYTHON)" VENV="$(VENV)" DEBIAN="$(DEBIAN)" sh setup.sh
	touch $@

clean:
	rm -rf $(VENV) $(DEMO)
