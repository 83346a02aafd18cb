# Cars196 for retrieval: trains on the first 98 models, searches all images of the other 98; else as CUB.
# data/stanford_cars holds car_ims/ and cars_annos.mat, or cars_train/, cars_test/ and devkit/.
_base_ = './retrieval_cub.py'

data = dict(type='mmkd_ext.Cars196', data_root='data/stanford_cars')

train_dataloader = dict(dataset=data)
val_dataloader = dict(dataset=data)
test_dataloader = dict(dataset=data)
