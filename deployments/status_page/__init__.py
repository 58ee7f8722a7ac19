"""The status page: how the models are, at a glance. `evergreen page` writes it.

It is one file, var/status/index.html, without anything from elsewhere: it can be opened, mailed and kept. Under
`evergreen up` the watcher keeps it new, and the router serves it at /status/ (responses.py).

    facts.py, plans.py   what is shown, read from files, Git and Prefect
    models.py            a model: the live release, the verdict, retraining, history
    monitoring.py        what the monitor measured: quality, drift, requests, alarms
    data.py              partitions, data versions, quarantine
    page.py              all of it in order;  parts.py  a part that cannot be shown says why
    templates/           HTML, the style and the script; pictures that other packages share: tasks/pictures
"""
