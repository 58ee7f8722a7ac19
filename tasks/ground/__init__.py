"""The ground of every wing: settings, params, files, errors."""
