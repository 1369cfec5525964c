"""From results to pages, figures and tables.

Reports know arrays and plain values, as they are in result files; they compute no images.

===================  =================================================================================================
`pixels`, `viewer`   images of a page as 16-bit data; `assets/viewer.js` shows them in the browser
`html`               `Report` and `render`: one self-contained HTML page; `assets/page.js` sorts and filters its tables
`facts`              what a certificate, a verdict, a mask or a recipe says, in words
`figures`, `atoms`   matplotlib figures of images, masks, curves and dictionaries, as PNG or SVG
`result_images`      what a result file holds to be looked at, as far as it can be read
`results`            the pages of result files, one by one or side by side
`flags`, `run`       what to look at in a batch, and its page
`evaluation`         the page of recipes and baselines on many files with references
`training`           the page of trainings
`demo`               the page of the demonstration
`plot`               `mrisps.plot`: figures for notebooks
===================  =================================================================================================
"""
