"""The studies as scripts; the command ``analog-samson`` runs them by short names."""
