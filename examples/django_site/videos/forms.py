from django import forms

from videos.models import Video


class VideoForm(forms.ModelForm):
    class Meta:
        model = Video
        fields = ("title", "background", "seconds", "ends")
        labels = {"title": "Title text", "background": "Background colour", "seconds": "Length in seconds"}
        widgets = {"ends": forms.RadioSelect}
