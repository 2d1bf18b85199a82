"""COCO's and VOC's classes, for weights that come without their names."""

COCO = tuple(
    """person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,
fire hydrant,stop sign,parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,
zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,
kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,
cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,
donut,cake,chair,couch,potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,
keyboard,cell phone,microwave,oven,toaster,sink,refrigerator,book,clock,vase,scissors,
teddy bear,hair drier,toothbrush""".replace("\n", "").split(",")
)

VOC = tuple(
    """aeroplane,bicycle,bird,boat,bottle,bus,car,cat,chair,cow,diningtable,dog,horse,
motorbike,person,pottedplant,sheep,sofa,train,tvmonitor""".replace("\n", "").split(",")
)

# The numbers of COCO's categories run to 90; these were never used.
_HOLES = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
COCO_IDS = tuple(i for i in range(1, 91) if i not in _HOLES)
# Those of weights whose labels are the categories' numbers, holes included.
COCO_NUMBERED = tuple(
    dict(zip(COCO_IDS, COCO, strict=True)).get(i, "N/A") for i in range(1, 91)
)


def names_for(count: int) -> tuple[str, ...]:
    """The names that a head of `count` classes has if it was trained on COCO.

    All 80, the 90 numbers, these behind a background, as torchvision's sigmoids have
    them, or the person alone, of keypoints; VOC's behind a background, which those for
    pixels have; all 80 for any other.
    """
    known = {
        91: ("background", *COCO_NUMBERED),
        90: COCO_NUMBERED,
        21: ("background", *VOC),
        1: COCO[:1],
    }
    return known.get(count, COCO)
