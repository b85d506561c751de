"""Skin: ISIC 2016 to 2020, HAM10000, PAD-UFES-20, Fitzpatrick17k."""

from __future__ import annotations

from published_trees import Read, Tree, lines

ISIC = [f"ISIC_{n:07}" for n in range(12)]
ONE_HOT = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC"


def one_hot(names: list[str], first: int = 0) -> list[str]:
    return [
        ",".join([name, *("1.0" if k == (first + i) % 7 else "0.0" for k in range(7))]) for i, name in enumerate(names)
    ]


SEVEN = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
TREES = (
    Tree(
        "ISIC 2016, part 1 (segmentation)",
        tuple(
            f"ISBI2016_ISIC_Part1_{split}_{end}"
            for split, names in (("Training", ISIC[:4]), ("Test", ISIC[4:6]))
            for name in names
            for end in (f"Data/{name}.jpg", f"GroundTruth/{name}_Segmentation.png")
        ),
        Read(6, splits={"train": 4, "test": 2}, masked=6),
    ),
    Tree(
        "ISIC 2016, part 3 (a table without a header)",
        tuple(f"ISBI2016_ISIC_Part3_Training_Data/{name}.jpg" for name in ISIC[:6]),
        Read(6, {"benign": 4, "malignant": 2}),
        {
            "ISBI2016_ISIC_Part3_Training_GroundTruth.csv": lines(
                *(f"{name},{'malignant' if n % 3 == 2 else 'benign'}" for n, name in enumerate(ISIC[:6]))
            )
        },
    ),
    Tree(
        "ISIC 2017 (superpixels beside the images, masks, two findings, three splits)",
        tuple(
            path
            for split, names in (("Training", ISIC[:4]), ("Validation", ISIC[4:6]), ("Test_v2", ISIC[6:8]))
            for name in names
            for path in (
                f"ISIC-2017_{split}_Data/{name}.jpg",
                f"ISIC-2017_{split}_Data/{name}_superpixels.png",
                f"ISIC-2017_{split}_Part1_GroundTruth/{name}_segmentation.png",
            )
        ),
        Read(8, {"melanoma": 3, "seborrheic_keratosis": 3}, 0, {"train": 4, "val": 2, "test": 2}, 8),
        {
            f"ISIC-2017_{split}_Part3_GroundTruth.csv": lines(
                "image_id,melanoma,seborrheic_keratosis",
                *(f"{name},{float(n % 3 == 0)},{float(n % 3 == 1)}" for n, name in rows),
            )
            for split, rows in (
                ("Training", list(enumerate(ISIC))[:4]),
                ("Validation", list(enumerate(ISIC))[4:6]),
                ("Test_v2", list(enumerate(ISIC))[6:8]),
            )
        },
        refused="melanoma, seborrheic_keratosis",
        options={"label_column": "melanoma;seborrheic_keratosis"},
    ),
    Tree(
        "ISIC 2018, tasks 1 and 2 (lesions and five attributes)",
        tuple(
            path
            for name in ISIC[:3]
            for path in (
                f"ISIC2018_Task1-2_Training_Input/{name}.jpg",
                f"ISIC2018_Task1_Training_GroundTruth/{name}_segmentation.png",
            )
        )
        + tuple(f"ISIC2018_Task1-2_Test_Input/{name}.jpg" for name in ISIC[6:8])
        + tuple(f"ISIC2018_Task1_Test_GroundTruth/{name}_segmentation.png" for name in ISIC[6:8]),
        Read(5, splits={"train": 3, "test": 2}, masked=5),
    ),
    Tree(
        "ISIC 2018, task 3 (a column a class, lesions that group images)",
        tuple(f"ISIC2018_Task3_Training_Input/{name}.jpg" for name in ISIC[:7])
        + tuple(f"ISIC2018_Task3_Validation_Input/{name}.jpg" for name in ISIC[7:9])
        + tuple(f"ISIC2018_Task3_Test_Input/{name}.jpg" for name in ISIC[9:12]),
        Read(
            12,
            {**dict.fromkeys(SEVEN, 1), "MEL": 3, "NV": 3, "BCC": 2},
            0,
            {"train": 7, "val": 2, "test": 3},
            cells={"ISIC_0000001.jpg": {"label": "NV"}, "ISIC_0000011.jpg": {"label": "BCC", "split": "test"}},
        ),
        {
            f"ISIC2018_Task3_{split}_GroundTruth/ISIC2018_Task3_{split}_GroundTruth.csv": lines(
                ONE_HOT, *one_hot(names)
            )
            for split, names in (("Training", ISIC[:7]), ("Validation", ISIC[7:9]), ("Test", ISIC[9:12]))
        },
    ),
    Tree(
        "ISIC 2019 (labels in one table, lesions in another)",
        tuple(
            f"ISIC_2019_Training_Input/{name}{'_downsampled' if n % 4 == 3 else ''}.jpg" for n, name in enumerate(ISIC)
        ),
        Read(
            12,
            {**dict.fromkeys(SEVEN, 2), "DF": 1, "VASC": 1},
            6,
            {"train": 12},
            cells={"ISIC_0000003_downsampled.jpg": {"label": "AKIEC", "patient_id": "BCN_0000001"}},
        ),
        {
            "ISIC_2019_Training_GroundTruth.csv": lines(
                f"{ONE_HOT},UNK",
                *(
                    f"{row.replace(',', '_downsampled,', 1) if n % 4 == 3 else row},0.0"
                    for n, row in enumerate(one_hot(ISIC))
                ),
            ),
            "ISIC_2019_Training_Metadata.csv": lines(
                "image,age_approx,anatom_site_general,lesion_id,sex",
                *(
                    f"{name}{'_downsampled' if n % 4 == 3 else ''},55.0,anterior torso,BCN_{n // 2:07},female"
                    for n, name in enumerate(ISIC)
                ),
            ),
        },
    ),
    Tree(
        "ISIC 2020 (three columns that may be the label)",
        tuple(f"jpeg/train/{name}.jpg" for name in ISIC[:8]) + tuple(f"jpeg/test/{name}.jpg" for name in ISIC[8:10]),
        Read(10, {"benign": 6, "malignant": 2}, 5, {"train": 8}),
        {
            "train.csv": lines(
                "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target",
                *(
                    f"{name},IP_{7279968 + n // 2},male,45.0,torso,"
                    + ("melanoma,malignant,1" if n % 4 == 2 else f"{'nevus' if n % 2 else 'unknown'},benign,0")
                    for n, name in enumerate(ISIC[:8])
                ),
            ),
            "test.csv": lines(
                "image_name,patient_id,sex,age_approx,anatom_site_general_challenge",
                *(f"{name},IP_3579794,male,50.0,torso" for name in ISIC[8:10]),
            ),
            "sample_submission.csv": lines("image_name,target", *(f"{name},0" for name in ISIC[8:10])),
        },
        refused="diagnosis, benign_malignant, target",
        options={"label_column": "benign_malignant"},
    ),
    Tree(
        "HAM10000",
        tuple(f"HAM10000_images_part_{1 + n // 6}/{name}.jpg" for n, name in enumerate(ISIC))
        + tuple(f"HAM10000_segmentations_lesion_tschandl/{name}_segmentation.png" for name in ISIC),
        Read(12, {"nv": 8, "mel": 4}, 6, masked=12),
        {
            "HAM10000_metadata.csv": lines(
                "lesion_id,image_id,dx,dx_type,age,sex,localization",
                *(
                    f"HAM_{n // 2:07},{name},{'mel' if n // 2 % 3 == 2 else 'nv'},histo,80.0,male,scalp"
                    for n, name in enumerate(ISIC)
                ),
            )
        },
    ),
    Tree(
        "PAD-UFES-20",
        tuple(
            f"images/imgs_part_{1 + n % 3}/imgs_part_{1 + n % 3}/PAT_{8 + n // 2}_{15 + n // 2}_{820 + n}.png"
            for n in range(8)
        ),
        Read(8, {"BCC": 4, "NEV": 4}, 4, cells={"PAT_9_16_822.png": {"label": "BCC", "patient_id": "PAT_9"}}),
        {
            "metadata.csv": lines(
                "patient_id,lesion_id,smoke,age,gender,region,diagnostic,itch,img_id,biopsed",
                *(
                    f"PAT_{8 + n // 2},{15 + n // 2},False,55,FEMALE,NECK,{'BCC' if n // 2 % 2 else 'NEV'},True,"
                    f"PAT_{8 + n // 2}_{15 + n // 2}_{820 + n}.png,True"
                    for n in range(8)
                ),
            )
        },
    ),
    Tree(
        "Fitzpatrick17k (images named by their MD5, several groupings of the label)",
        tuple(f"images/{n:032x}.jpg" for n in range(10, 18)),
        Read(8, {"psoriasis": 4, "melanoma": 4}),
        {
            "fitzpatrick17k.csv": lines(
                "md5hash,fitzpatrick_scale,fitzpatrick_centaur,label,nine_partition_label,three_partition_label,qc,"
                "url,url_alphanum",
                *(
                    f"{n:032x},{n % 6 + 1},3,{'melanoma' if n % 2 else 'psoriasis'},"
                    f"{'malignant melanoma' if n % 2 else 'inflammatory'},{'malignant' if n % 2 else 'non-neoplastic'},"
                    f",http://x/{n},x{n}.jpg"
                    for n in range(10, 18)
                ),
            )
        },
    ),
)
