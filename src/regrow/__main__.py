"""``python -m regrow`` is ``regrow``; ``torchrun -m regrow`` runs its trials on several ranks."""

from regrow.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
