"""Upload of a trained run to the Hugging Face hub (`docs/sharing.md`)."""
