"""Make a data set from annotated pictures, or export one: see --help.

    python scripts/make_dataset.py FORMAT --name=mine --root=DIR ...

FORMAT is yolo, coco, voc, labelme, cvat, objectmasks, labelmaps or folders, each with
its own --help.
"""

from detjax.commands.make_dataset import main

if __name__ == "__main__":
    main()
