"""People as teachers: clips are shown side by side in a browser, and answers kept in a file."""

from regrow.control.people.drawings import Clip, drawing_of
from regrow.control.people.pages import film_page
from regrow.control.people.store import CHOICES, Preferences, Question
from regrow.control.people.teacher import People

__all__ = ["CHOICES", "Clip", "People", "Preferences", "Question", "drawing_of", "film_page"]
