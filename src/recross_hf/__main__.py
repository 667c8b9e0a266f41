"""`python -m recross_hf` is the command `recross`; so is `accelerate launch -m recross_hf`."""

from .cli.main import main

if __name__ == "__main__":
    main()
