"""The ground of everything else in tasks: settings, params, files, errors."""
