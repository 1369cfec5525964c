"""The trained weights that come with the package: a file NAME.safetensors and a model card NAME.md each."""

from pathlib import Path

__all__ = ["model_card", "shipped_weights"]

FOLDER = Path(__file__).parent / "weights"


def shipped_weights() -> dict[str, Path]:
    """Name -> file."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.safetensors"))}


def model_card(name: str) -> str:
    """What the weights of this name were trained on, how good they are, and what they are not for (Markdown).

    Raises
    ------
    KeyError
        No such weights come with the package.
    """
    return shipped_weights()[name].with_suffix(".md").read_text(encoding="utf-8")
