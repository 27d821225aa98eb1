"""The pictures of `--pictures=explain`."""

from collections.abc import Iterable
from pathlib import Path

from ssanet_jax.data.training_photos import TrainingPhotos
from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.drawing import save_picture
from ssanet_jax.evaluation.explained_picture import explained_picture
from ssanet_jax.evaluation.explanation import explain, finds_object
from ssanet_jax.evaluation.prediction import Prediction
from ssanet_jax.prediction_files import contact_sheet
from ssanet_jax.prediction_files.journal import Record
from ssanet_jax.predictor import Predictor


class Explainer:
    """Draws explanations with training photos, or without them where the index or the photos are missing.

    Args:
      predictor: the network.
      details: also write what only readers of the method understand.
    """

    def __init__(self, predictor: Predictor, *, details: bool = False):
        self._details = details
        self._class_names = predictor.class_names
        self._has_object = finds_object(predictor.config)
        self._index = self._photos = None
        self.problem = ''
        """Why there are no training photos; '' if there are."""
        try:
            index = predictor.index
            self._photos = TrainingPhotos(predictor.config.data, index.files[0])
            self._index = index
        except UserError as error:
            self.problem = str(error)

    def save(self, prediction: Prediction, path: Path) -> None:
        """Draws the explanation of a prediction to a file.

        Raises:
          UserError: the file cannot be written, or the photo can no longer be read.
        """
        explanation = explain(prediction, self._has_object, self._index, self._photos)
        save_picture(path, explained_picture(explanation, details=self._details))

    def write_contact_sheets(self, out: Path, records: Iterable[Record]) -> list[Path]:
        """Writes the contact sheets of a prediction to a folder, see `contact_sheet.write_contact_sheets`."""
        return contact_sheet.write_contact_sheets(out, records, self._class_names, self._has_object)
