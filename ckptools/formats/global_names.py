"""The names that :mod:`ckptools.formats.globals` knows, one module a line.

``KNOWN`` holds exact names only: what training checkpoints of the usual frameworks hold and what
does no more than build data.  ``DANGEROUS_NAMES`` are exact, too; under ``DANGEROUS_MODULES`` every
name that is not known counts as dangerous, whatever lies below it.
"""

from __future__ import annotations

_KNOWN = """
builtins: set frozenset list dict tuple int float bool str bytes complex object slice range
builtins: Ellipsis NotImplemented
collections: OrderedDict defaultdict Counter deque ChainMap UserDict UserList UserString
copyreg: _reconstructor __newobj__ __newobj_ex__
argparse: Namespace
types: SimpleNamespace MappingProxyType NoneType EllipsisType NotImplementedType
pathlib: Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath
pathlib._local: Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath
datetime: date time datetime timedelta timezone
_strptime: struct_time
time: struct_time
decimal: Decimal
fractions: Fraction
uuid: UUID SafeUUID
zoneinfo: ZoneInfo
random: Random
array: array _array_reconstructor
itertools: count repeat chain cycle
re: _compile Pattern compile RegexFlag
string: Template
ipaddress: IPv4Address IPv6Address IPv4Network IPv6Network
enum: Enum IntEnum Flag IntFlag
http: HTTPStatus
logging: getLogger Logger RootLogger
inspect: Signature Parameter _ParameterKind
dataclasses: Field _MISSING_TYPE _HAS_DEFAULT_FACTORY_CLASS _FIELD_BASE
typing: Any Union Optional List Dict Tuple Set FrozenSet Sequence Mapping Callable Iterable
typing: Iterator Literal Type ClassVar Generic TypeVar NamedTuple Text Number _GenericAlias
numpy: ndarray dtype bool_ bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 intc uintc
numpy: float16 float32 float64 longdouble complex64 complex128 str_ bytes_ void object_
numpy: datetime64 timedelta64 longlong ulonglong intp uintp matrix recarray record
numpy.core.multiarray: scalar _reconstruct ndarray
numpy._core.multiarray: scalar _reconstruct ndarray
numpy.core.numeric: _frombuffer
numpy._core.numeric: _frombuffer
numpy.core: _ufunc_reconstruct _DType_reconstruct
numpy._core: _ufunc_reconstruct _DType_reconstruct
numpy.core._multiarray_umath: _ufunc_reconstruct
numpy._core._multiarray_umath: _ufunc_reconstruct
numpy.ma.core: MaskedArray _mareconstruct
numpy.dtypes: BoolDType Int8DType Int16DType Int32DType Int64DType UInt8DType UInt16DType
numpy.dtypes: UInt32DType UInt64DType Float16DType Float32DType Float64DType Complex64DType
numpy.dtypes: Complex128DType ObjectDType StrDType BytesDType VoidDType StringDType
numpy.random: RandomState Generator
numpy.random.mtrand: RandomState
numpy.random._generator: Generator
numpy.random._mt19937: MT19937
numpy.random._pcg64: PCG64 PCG64DXSM
numpy.random._philox: Philox
numpy.random._sfc64: SFC64
numpy.random.bit_generator: SeedSequence ISeedSequence __pyx_unpickle_SeedSequence
numpy.random._pickle: __randomstate_ctor __generator_ctor __bit_generator_ctor
ml_dtypes: bfloat16 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu int4
pandas._libs.internals: _unpickle_block
pandas.core.frame: DataFrame
pandas.core.series: Series
pandas.core.indexes.base: Index _new_Index
pandas.core.indexes.range: RangeIndex
pandas.core.internals.managers: BlockManager SingleBlockManager
sklearn.preprocessing._data: StandardScaler MinMaxScaler RobustScaler MaxAbsScaler Normalizer
sklearn.preprocessing._label: LabelEncoder LabelBinarizer MultiLabelBinarizer
scipy.sparse._csr: csr_matrix csr_array
scipy.sparse._coo: coo_matrix coo_array
torch: Size Tensor Generator dtype layout
torch: float32 float64 float16 bfloat16 float double half float8_e4m3fn float8_e5m2
torch: float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu float4_e2m1fn_x2 complex32 complex64
torch: complex128 chalf cfloat cdouble int8 int16 int32 int64 uint8 uint16 uint32 uint64 short int
torch: long bool qint8 quint8 qint32 quint4x2 quint2x4 bits8 bits16 bits1x8 bits2x4 bits4x2
torch: int1 int2 int3 int4 int5 int6 int7 uint1 uint2 uint3 uint4 uint5 uint6 uint7
torch: per_tensor_affine per_tensor_symmetric per_channel_affine per_channel_symmetric
torch: per_channel_affine_float_qparams strided sparse_coo sparse_csr sparse_csc sparse_bsr
torch: sparse_bsc jagged contiguous_format channels_last channels_last_3d preserve_format
torch: FloatStorage DoubleStorage HalfStorage BFloat16Storage LongStorage IntStorage ShortStorage
torch: CharStorage ByteStorage BoolStorage ComplexFloatStorage ComplexDoubleStorage
torch: QInt8Storage QUInt8Storage QInt32Storage QUInt4x2Storage QUInt2x4Storage
torch: Storage UntypedStorage TypedStorage
torch: relu tanh sigmoid softmax log_softmax exp log sqrt rsqrt sin cos abs square erf selu celu
torch: logsumexp sum mean max min amax amin add mul sub div matmul clamp relu_ layer_norm
torch.cuda: FloatStorage DoubleStorage HalfStorage BFloat16Storage LongStorage IntStorage
torch.cuda: ShortStorage CharStorage ByteStorage BoolStorage
torch.storage: UntypedStorage TypedStorage _LegacyStorage
torch.nested._internal.nested_tensor: _rebuild_njt NestedTensor
torch._dynamo.decorators: _DimRange
torch._utils: _rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_parameter
torch._utils: _rebuild_parameter_with_state _rebuild_sparse_tensor _rebuild_sparse_csr_tensor
torch._utils: _rebuild_nested_tensor _rebuild_qtensor _rebuild_meta_tensor_no_storage
torch._utils: _rebuild_wrapper_subclass _rebuild_device_tensor_from_numpy _rebuild_xla_tensor
torch._utils: _rebuild_device_tensor_from_cpu_tensor _rebuild_mlc_tensor
torch._tensor: _rebuild_from_type_v2 _rebuild_from_type Tensor
torch.tensor: _rebuild_from_type_v2 _rebuild_from_type Tensor
torch._namedtensor_internals: _rebuild_named_tensor
torch.serialization: _get_layout
torch.autograd.variable: Variable
torch.jit._pickle: build_intlist build_tensorlist build_doublelist build_boollist
torch.jit._pickle: build_tensor_from_id restore_type_tag
torch.nn: Parameter Module ModuleList ModuleDict Sequential Linear Embedding LayerNorm
torch.nn.parameter: Parameter Buffer UninitializedParameter UninitializedBuffer
torch.nn.backends.thnn: _get_thnn_function_backend
torch.nn.modules.activation: CELU ELU GELU GLU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU
torch.nn.modules.activation: LogSigmoid LogSoftmax Mish MultiheadAttention PReLU RReLU ReLU ReLU6
torch.nn.modules.activation: SELU SiLU Sigmoid Softmax Softmax2d Softmin Softplus Softshrink
torch.nn.modules.activation: Softsign Tanh Tanhshrink Threshold
torch.nn.modules.adaptive: AdaptiveLogSoftmaxWithLoss
torch.nn.modules.batchnorm: BatchNorm1d BatchNorm2d BatchNorm3d SyncBatchNorm
torch.nn.modules.channelshuffle: ChannelShuffle
torch.nn.modules.container: Container ModuleDict ModuleList ParameterDict ParameterList Sequential
torch.nn.modules.conv: Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d
torch.nn.modules.distance: CosineSimilarity PairwiseDistance
torch.nn.modules.dropout: AlphaDropout Dropout Dropout1d Dropout2d Dropout3d FeatureAlphaDropout
torch.nn.modules.flatten: Flatten Unflatten
torch.nn.modules.fold: Fold Unfold
torch.nn.modules.instancenorm: InstanceNorm1d InstanceNorm2d InstanceNorm3d
torch.nn.modules.linear: Bilinear Identity LazyLinear Linear NonDynamicallyQuantizableLinear
torch.nn.modules.linear: _LinearWithBias
torch.nn.modules.loss: BCELoss BCEWithLogitsLoss CTCLoss CosineEmbeddingLoss CrossEntropyLoss
torch.nn.modules.loss: GaussianNLLLoss HingeEmbeddingLoss HuberLoss KLDivLoss L1Loss MSELoss
torch.nn.modules.loss: MarginRankingLoss MultiLabelMarginLoss MultiLabelSoftMarginLoss
torch.nn.modules.loss: MultiMarginLoss NLLLoss NLLLoss2d PoissonNLLLoss SmoothL1Loss SoftMarginLoss
torch.nn.modules.loss: TripletMarginLoss TripletMarginWithDistanceLoss
torch.nn.modules.module: Module
torch.nn.modules.normalization: CrossMapLRN2d GroupNorm LayerNorm LocalResponseNorm RMSNorm
torch.nn.modules.padding: CircularPad1d CircularPad2d CircularPad3d ConstantPad1d ConstantPad2d
torch.nn.modules.padding: ConstantPad3d ReflectionPad1d ReflectionPad2d ReflectionPad3d
torch.nn.modules.padding: ReplicationPad1d ReplicationPad2d ReplicationPad3d ZeroPad1d ZeroPad2d
torch.nn.modules.padding: ZeroPad3d
torch.nn.modules.pixelshuffle: PixelShuffle PixelUnshuffle
torch.nn.modules.pooling: AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool1d
torch.nn.modules.pooling: AdaptiveMaxPool2d AdaptiveMaxPool3d AvgPool1d AvgPool2d AvgPool3d
torch.nn.modules.pooling: FractionalMaxPool2d FractionalMaxPool3d LPPool1d LPPool2d LPPool3d
torch.nn.modules.pooling: MaxPool1d MaxPool2d MaxPool3d MaxUnpool1d MaxUnpool2d MaxUnpool3d
torch.nn.modules.rnn: GRU GRUCell LSTM LSTMCell RNN RNNBase RNNCell RNNCellBase
torch.nn.modules.sparse: Embedding EmbeddingBag
torch.nn.modules.transformer: Transformer TransformerDecoder TransformerDecoderLayer
torch.nn.modules.transformer: TransformerEncoder TransformerEncoderLayer
torch.nn.modules.upsampling: Upsample UpsamplingBilinear2d UpsamplingNearest2d
torch.nn.parallel.data_parallel: DataParallel
torch.nn.parallel.distributed: DistributedDataParallel
torch.nn.utils.weight_norm: WeightNorm
torch.nn.utils.spectral_norm: SpectralNorm SpectralNormStateDictHook
torch.nn.utils.spectral_norm: SpectralNormLoadStateDictPreHook
torch.nn.functional: relu gelu silu elu selu celu leaky_relu relu6 tanh sigmoid mish hardswish
torch.nn.functional: hardsigmoid hardtanh softmax log_softmax softplus softsign logsigmoid glu
torch.nn.functional: dropout cross_entropy mse_loss l1_loss smooth_l1_loss nll_loss interpolate
torch.nn.functional: binary_cross_entropy binary_cross_entropy_with_logits normalize huber_loss
torch._C._nn: gelu softplus log_sigmoid silu linear
torch.nn.init: xavier_uniform_ xavier_normal_ kaiming_uniform_ kaiming_normal_ normal_ uniform_
torch.nn.init: zeros_ ones_ constant_ orthogonal_ trunc_normal_ eye_ dirac_ sparse_
torch.optim: SGD Adam AdamW
torch.optim.adadelta: Adadelta
torch.optim.adagrad: Adagrad
torch.optim._adafactor: Adafactor
torch.optim._muon: Muon
torch.optim.adam: Adam
torch.optim.adamax: Adamax
torch.optim.adamw: AdamW
torch.optim.asgd: ASGD
torch.optim.lbfgs: LBFGS
torch.optim.nadam: NAdam
torch.optim.optimizer: Optimizer _RequiredParameter
torch.optim.radam: RAdam
torch.optim.rmsprop: RMSprop
torch.optim.rprop: Rprop
torch.optim.sgd: SGD
torch.optim.sparse_adam: SparseAdam
torch.optim.swa_utils: AveragedModel SWALR
torch.optim.lr_scheduler: ChainedScheduler ConstantLR CosineAnnealingLR ExponentialLR LRScheduler
torch.optim.lr_scheduler: CosineAnnealingWarmRestarts CyclicLR LambdaLR LinearLR MultiStepLR
torch.optim.lr_scheduler: MultiplicativeLR OneCycleLR PolynomialLR ReduceLROnPlateau SequentialLR
torch.optim.lr_scheduler: StepLR _LRScheduler _SchedulePhase _enable_get_lr_call
torch.amp.grad_scaler: GradScaler OptState _refresh_per_optimizer_state
torch.cuda.amp.grad_scaler: GradScaler OptState _refresh_per_optimizer_state
torch.utils.data.dataset: Dataset TensorDataset Subset ConcatDataset
torch.utils.hooks: RemovableHandle
torch.ao.quantization.observer: MinMaxObserver MovingAverageMinMaxObserver HistogramObserver
torch.ao.quantization.observer: PerChannelMinMaxObserver PlaceholderObserver
torch.ao.quantization.fake_quantize: FakeQuantize
torch.ao.quantization.qconfig: QConfig
torch.distributed._tensor.api: DTensor
torch.distributed.tensor: DTensor
torch.distributed.tensor._api: DTensor
torch.distributed.tensor._dtensor_spec: DTensorSpec TensorMeta ShardOrderEntry
torch.distributed._tensor.placement_types: DTensorSpec TensorMeta Shard Replicate Partial _Partial
torch.distributed.tensor.placement_types: Shard Replicate Partial _StridedShard _MaskPartial
torch.distributed.device_mesh: DeviceMesh
torch.distributed._mesh_layout: _MeshLayout _FlatLayout
torch.distributed._shard.sharded_tensor.api: ShardedTensor ShardedTensorBase
torch.distributed._shard.sharded_tensor.metadata: ShardedTensorMetadata TensorProperties
torch.distributed._shard.sharded_tensor.metadata: MEM_FORMAT_ENCODING
torch.distributed._shard.sharded_tensor.shard: Shard
torch.distributed._shard.metadata: ShardMetadata
torch.distributed._shard.sharding_spec.chunk_sharding_spec: ChunkShardingSpec
torch.distributed._shard.sharding_spec.api: EnumerableShardingSpec
torch.distributed.remote_device: _remote_device
torch.distributed.checkpoint.metadata: Metadata MetadataIndex TensorStorageMetadata
torch.distributed.checkpoint.metadata: BytesStorageMetadata ChunkStorageMetadata StorageMeta
torch.distributed.checkpoint.metadata: TensorProperties _MEM_FORMAT_ENCODING
torch.distributed.checkpoint.filesystem: _StorageInfo _StoragePrefix SerializationFormat
torch.distributed.checkpoint.planner: SavePlan WriteItem WriteItemType TensorWriteData
torch.distributed.checkpoint._extension: StreamTransformExtension ZStandard
torch.distributed.fsdp._common_utils: FSDPMeta TrainingState
torch.distributed.fsdp.api: ShardingStrategy MixedPrecision BackwardPrefetch
transformers.training_args: TrainingArguments OptimizerNames ParallelMode
transformers.training_args_seq2seq: Seq2SeqTrainingArguments
transformers.trainer_utils: IntervalStrategy SchedulerType HubStrategy SaveStrategy
transformers.trainer_utils: EvaluationStrategy
transformers.trainer_utils: FSDPOption
transformers.trainer_pt_utils: AcceleratorConfig
transformers.integrations.deepspeed: HfDeepSpeedConfig HfTrainerDeepSpeedConfig
transformers.utils.generic: ExplicitEnum
accelerate.state: PartialState AcceleratorState
accelerate.utils.dataclasses: DistributedType PrecisionType DynamoBackend TorchDynamoPlugin
accelerate.utils.dataclasses: DeepSpeedPlugin FullyShardedDataParallelPlugin
accelerate.utils.dataclasses: SageMakerDistributedType
accelerate.utils.dataclasses: GradientAccumulationPlugin RNGType
omegaconf.dictconfig: DictConfig
omegaconf.listconfig: ListConfig
omegaconf.base: ContainerMetadata Metadata Node SCMode
omegaconf.nodes: AnyNode StringNode IntegerNode FloatNode BooleanNode EnumNode BytesNode PathNode
omegaconf.nodes: InterpolationResultNode
lightning_fabric.utilities.data: AttributeDict
lightning.fabric.utilities.data: AttributeDict
lightning_utilities.core.enums: StrEnum
pytorch_lightning.utilities.parsing: AttributeDict
pytorch_lightning.callbacks.model_checkpoint: ModelCheckpoint
pytorch_lightning.callbacks.early_stopping: EarlyStopping
lightning.pytorch.utilities.parsing: AttributeDict
lightning.pytorch.callbacks.model_checkpoint: ModelCheckpoint
lightning.pytorch.callbacks.early_stopping: EarlyStopping
deepspeed.runtime.fp16.loss_scaler: LossScaler DynamicLossScaler LossScalerBase
deepspeed.runtime.zero.config: ZeroStageEnum
deepspeed.utils.tensor_fragment: fragment_address tensor_fragment
deepspeed.checkpoint.utils: SubparamShape
mmengine.config.config: Config ConfigDict
mmengine.config.lazy: LazyObject LazyAttr
mmengine.logging.history_buffer: HistoryBuffer
mmcv.utils.config: Config ConfigDict
addict.addict: Dict
easydict: EasyDict
munch: Munch DefaultMunch AutoMunch RecursiveMunch DefaultFactoryMunch
yacs.config: CfgNode
fvcore.common.config: CfgNode
ml_collections.config_dict.config_dict: ConfigDict FrozenConfigDict FieldReference
peft.utils.peft_types: PeftType TaskType
peft.tuners.lora.config: LoraConfig LoraRuntimeConfig
peft.tuners.lora: LoraConfig
megatron.core.enums: ModelType
megatron.model.enums: ModelType LayerType AttnType AttnMaskType
megatron.core.transformer.enums: AttnBackend AttnMaskType ModelType
"""

_DANGEROUS_NAMES = """
builtins: eval exec compile open __import__ getattr setattr delattr hasattr globals locals vars
builtins: input breakpoint apply execfile reload memoryview map filter print type super classmethod
builtins: staticmethod property iter next callable help exit quit dir id sorted reduce
functools: partial partialmethod reduce singledispatch singledispatchmethod cached_property
types: FunctionType CodeType LambdaType MethodType ModuleType BuiltinFunctionType CoroutineType
types: GeneratorType new_class
_codecs: encode decode lookup register
codecs: open encode decode lookup register getreader getwriter
copyreg: _inverted_registry add_extension constructor pickle
logging: FileHandler basicConfig StreamHandler shutdown
logging.config: dictConfig fileConfig listen
random: SystemRandom
numpy: load save savez fromfile memmap loadtxt genfromtxt fromregex tofile fromstring DataSource
numpy: safe_eval vectorize frompyfunc fromfunction apply_along_axis apply_over_axes source
numpy: piecewise savetxt
torch: load save hub compile jit ops library package import_ir_module import_ir_module_from_buffer
torch.storage: _load_from_bytes
torch.serialization: load save _load _legacy_load add_safe_globals
torch._utils: _import_dotted_name
torch.utils.model_zoo: load_url
torch.utils.cpp_extension: load load_inline
torch.utils.collect_env: run run_and_read_all run_and_parse_first_match run_lambda
torch.utils.checkpoint: checkpoint
torch.nn.parallel.parallel_apply: parallel_apply
torch.fx.graph_module: reduce_graph_module reduce_package_graph_module reduce_deploy_graph_module
torch.multiprocessing.reductions: rebuild_storage_filename rebuild_storage_fd rebuild_cuda_tensor
torch.utils.data.datapipes.utils.decoder: basichandlers
torch.distributed.distributed_c10d: _pickle_storage_unpickle
pandas: read_pickle read_csv eval read_sql read_json read_html
pandas.io.pickle: read_pickle
pandas.io.common: get_handle
joblib: load dump
sklearn.utils._joblib: load
"""

_DANGEROUS_MODULES = """
os posix nt ntpath posixpath sys subprocess _posixsubprocess commands popen2 shutil pty tty socket
_socket socketserver ssl select selectors asyncio multiprocessing concurrent threading _thread
signal ctypes _ctypes cffi mmap fcntl resource pwd grp crypt termios webbrowser urllib urllib2
httplib ftplib smtplib poplib imaplib nntplib telnetlib xmlrpc cgi wsgiref requests httpx aiohttp
urllib3 paramiko fabric importlib _imp imp zipimport pkgutil runpy code codeop pdb bdb cProfile
profile _lsprof trace timeit doctest idlelib lib2to3 distutils setuptools pip ensurepip venv pydoc
site sysconfig compileall py_compile marshal pickle _pickle cPickle pickletools dill cloudpickle
shelve dbm sqlite3 io _io _pyio tempfile fileinput glob pathlib._os linecache tokenize
operator _operator _functools _compat_pickle weakref gc atexit faulthandler tracemalloc
ast dis symtable parser ctypes.util tkinter turtle turtledemo test unittest readline rlcompleter
cmd platform getpass logging.handlers logging.config bz2 gzip lzma zipfile tarfile zlib email uu
sched queue contextlib contextvars _aix_support _osx_support _pyrepl nturl2path genericpath
win32api win32com winreg _winapi msvcrt antigravity this imghdr pyclbr modulefinder filecmp
torch.hub torch.jit torch.package torch._inductor torch._dynamo torch._export torch.export
torch.distributed.rpc torch.distributed.run torch.distributed.launch torch.distributed.elastic
torch.utils.bottleneck torch.utils.collect_env torch.utils.cpp_extension torch.utils._cpp_extension
torch.utils.model_zoo torch.utils.benchmark torch.utils._config_module torch.utils.data.datapipes
torch.fx torch._higher_order_ops torch._functorch torch.onnx torch.testing torch._lobpcg
torch.utils.hipify torch.utils.tensorboard torch.utils.show_pickle torch.utils.file_baton
torch.cuda._sanitizer torch.profiler torch.autograd.profiler torch._library torch.library
numpy.f2py numpy.distutils numpy.testing numpy.ctypeslib numpy.lib.npyio numpy.lib._npyio_impl
numpy.lib.utils numpy.lib._datasource numpy.lib.format numpy.memmap numpy.compat
joblib.numpy_pickle sympy nltk.data ray.cloudpickle tensorflow.io tensorflow.python keras.models
bdist_mpkg psutil pexpect sh plumbum invoke docker boto3 git
"""


def _exact(text: str) -> frozenset[tuple[str, str]]:
    """Return the (module, name) pairs of a table."""
    pairs: set[tuple[str, str]] = set()
    for line in text.strip().splitlines():
        module, names = line.split(":")
        pairs.update((module, name) for name in names.split())
    return frozenset(pairs)


def _tensor_classes() -> frozenset[tuple[str, str]]:
    """Return the typed tensor classes, which old files name."""
    kinds = "Float Double Half BFloat16 Byte Char Short Int Long Bool ComplexFloat ComplexDouble"
    modules = ("torch", "torch.cuda", "torch.sparse", "torch.cuda.sparse")
    return frozenset((module, f"{kind}Tensor") for module in modules for kind in kinds.split())


TENSOR_CLASSES = _tensor_classes()
KNOWN = _exact(_KNOWN) | TENSOR_CLASSES
DANGEROUS_NAMES = _exact(_DANGEROUS_NAMES)
DANGEROUS_MODULES = frozenset(_DANGEROUS_MODULES.split())
