# Stanford Cars with the classes of the Semantic Shift Benchmark: 98 known, 98 novel; views as for CUB.
# data/stanford_cars holds cars_annos.mat and car_ims/, or devkit/, cars_train/ and cars_test/.
_base_ = './ncd_cub.py'

data = dict(type='StanfordCars', data_root='data/stanford_cars')
known = '{{ fileDirname }}/splits/stanford_cars_ssb.json'

train_dataloader = dict(dataset=dict(known=known, dataset=data))
val_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(split, known=known, dataset=dict(split.dataset, **data))
            for split in _base_.val_dataloader.dataset.datasets]))
test_dataloader = val_dataloader

val_evaluator = dict(num_known=98)
test_evaluator = val_evaluator
