"""The Workshop tab: where people join, meet each other's runs, and a teacher sees the room."""
